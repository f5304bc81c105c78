import gc
import inspect
import weakref
from typing import NamedTuple

import pytest
import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_vjp


class Token:
    """Something whose end of life a test observes."""


class Scaled(NamedTuple):
    """An argument with a tensor, a tensor that may be None, and a number."""

    x: tf.Tensor
    shift: tf.Tensor | None
    power: int


def gradient_of(function, *inputs):
    """`d outputs / d inputs`, of the sum of all outputs."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
    return tape.gradient(outputs, inputs)


def traced_square():
    """A traced gradient with a token for a residual, and a reference to it."""
    token = Token()

    @tf.function(autograph=False)
    def differentiate(x):
        square = custom_vjp(
            lambda x, token=token: (x * x, (x, token)),
            lambda residuals, d_y: (3.0 * residuals[0] * d_y,),
        )
        return gradient_of(square, x)[0]

    return differentiate, weakref.ref(token)


def test_a_graph_owns_its_residuals():
    differentiate, token = traced_square()
    assert differentiate(tf.constant(2.0)) == 6.0
    gc.collect()
    assert token() is not None
    # A second trace differentiates anew.
    assert differentiate(tf.constant([2.0]))[0] == 6.0


def test_residuals_are_freed_with_their_graph():
    differentiate, token = traced_square()
    differentiate(tf.constant(2.0))
    del differentiate
    gc.collect()
    assert token() is None


def test_eager_residuals_are_freed_with_the_tape():
    token = Token()
    reference = weakref.ref(token)
    square = custom_vjp(
        lambda x, token=token: (x * x, (x, token)),
        lambda residuals, d_y: (d_y,),
    )
    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = square(x)
    del square, token
    gc.collect()
    assert reference() is not None
    assert tape.gradient(y, x) == 1.0
    del tape, y
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("first_order", [False, True])
def test_outputs_keep_their_structure(first_order, execution):
    def forward(x):
        return (x, {1: 2 * x, 0: [3 * x]}), None

    def backward(residuals, d_first, d_others):
        assert residuals is None
        return (d_first + 20 * d_others[1] + 300 * d_others[0][0],)

    def run(x):
        function = custom_vjp(forward, backward, first_order=first_order)
        first, others = function(x)
        assert set(others) == {0, 1} and len(others[0]) == 1
        return gradient_of(lambda x: function(x), x)[0], others[1]

    gradient, doubled = execution(run)(tf.constant(1.0))
    assert gradient == 321.0 and doubled == 2.0


def test_arguments_are_structures(execution):
    def forward(scaled, tables, flag):
        assert flag == "static" and scaled.power == 3 and scaled.shift is None
        y = scaled.x**scaled.power + tf.cast(tables["index"], tf.float32)
        return y, (scaled, tables)

    def backward(residuals, d_y):
        scaled, _ = residuals
        d_x = 3 * scaled.x**2 * d_y
        return Scaled(d_x, None, None), None, None

    def run(x, index):
        function = custom_vjp(forward, backward)
        return gradient_of(
            lambda x: function(Scaled(x, None, 3), {"index": index}, "static"),
            x,
        )[0]

    gradient = execution(run)(tf.constant(2.0), tf.constant(5))
    assert gradient == 12.0


def test_gradients_get_the_dtypes_of_their_arguments(execution):
    def run(x):
        function = custom_vjp(
            lambda x: (tf.cast(x, tf.float32), None),
            lambda residuals, d_y: (2 * d_y,),
        )
        return gradient_of(function, x)[0]

    gradient = execution(run)(tf.constant(1.0, tf.float16))
    assert gradient.dtype == tf.float16 and gradient == 2.0


def test_each_argument_needs_a_gradient_or_none():
    function = custom_vjp(
        lambda x, y: (x * y, None), lambda residuals, d_z: (d_z,)
    )
    with pytest.raises(ValueError, match="zip"):
        gradient_of(function, tf.constant(1.0), tf.constant(2.0))


def test_gradients_inside_of_loops_and_conditions():
    double = custom_vjp(
        lambda x: (2.0 * x, None), lambda residuals, d_y: (5.0 * d_y,)
    )

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


def test_autograph_converts_neither_pass():
    files = []

    def forward(x):
        files.append(inspect.currentframe().f_code.co_filename)
        return 2.0 * x, None

    def backward(residuals, d_y):
        files.append(inspect.currentframe().f_code.co_filename)
        return (2.0 * d_y,)

    tf.function(lambda x: gradient_of(custom_vjp(forward, backward), x))(
        tf.constant(1.0)
    )
    assert files == [__file__] * 2


def second_derivative(function):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            dy = gradient_of(function, x)[0]
        return tape.gradient(dy, x)

    return run


@pytest.mark.parametrize("graph", [False, True])
def test_second_order_gradients_are_refused(graph):
    square = custom_vjp(lambda x: (x * x, x), lambda x, d_y: (2.0 * x * d_y,))
    run = second_derivative(square)
    run = tf.function(run, autograph=False) if graph else run
    with pytest.raises(LookupError, match="Second-order gradients"):
        run(tf.constant(2.0))


@pytest.mark.parametrize("graph", [False, True])
def test_linear_functions_may_be_differentiated_twice(graph):
    triple = custom_vjp(
        lambda x: (3.0 * x, None),
        lambda residuals, d_y: (3.0 * d_y,),
        first_order=False,
    )
    run = second_derivative(lambda x: triple(x) ** 2)
    run = tf.function(run, autograph=False) if graph else run
    assert run(tf.constant(2.0)) == 18.0


def test_no_eager_tape_records_the_forward_pass():
    inside = []

    def forward(x):
        y = x * x
        inside.append((x, y))
        return y, x

    x = tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        custom_vjp(forward, lambda x, d_y: (2.0 * x * d_y,))(x)
    ((_, y),) = inside
    assert tape.gradient(y, x) is None
