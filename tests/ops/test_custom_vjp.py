import gc
import weakref

import pytest
import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_gradient


class Token:
    """Something that can be waited for to be freed."""


def traced_square():
    """A traced gradient that captures a token, and a reference to it."""
    token = Token()

    @custom_gradient
    def square(x):
        def gradient(upstream, token=token):
            return 3.0 * x * upstream

        return x * x, gradient

    @tf.function(autograph=False)
    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = square(x)
        return tape.gradient(y, x)

    return differentiate, weakref.ref(token)


def test_a_graph_owns_its_gradients():
    differentiate, token = traced_square()
    assert differentiate(tf.constant(2.0)) == 6.0
    gc.collect()
    assert token() is not None
    # A second trace differentiates anew.
    assert differentiate(tf.constant([2.0]))[0] == 6.0


def test_what_a_gradient_captures_is_freed_with_its_graph():
    differentiate, token = traced_square()
    differentiate(tf.constant(2.0))
    del differentiate
    gc.collect()
    assert token() is None


@pytest.mark.parametrize("graph", [False, True])
def test_outputs_keep_their_kind(graph):
    @custom_gradient
    def pair(x):
        return (x, 2 * x), lambda a, b: a + 2 * b

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            first, second = pair(x)
        return tape.gradient([first, second], x)

    run = tf.function(run, autograph=False) if graph else run
    assert run(tf.constant(1.0)) == 3.0


def test_gradients_inside_of_loops_and_conditions():
    @custom_gradient
    def double(x):
        return 2.0 * x, lambda upstream: 5.0 * upstream

    @tf.function(autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, y = tf.while_loop(
                lambda index, y: index < 2,
                lambda index, y: (index + 1, double(y)),
                (0, x),
            )
            y = tf.cond(y > 0, lambda: double(y), lambda: y)
        return tape.gradient(y, x)

    assert run(tf.constant(1.0)) == 125.0
