"""Ties of data that XLA must not see through."""

import pytest
import tensorflow as tf

from keras_reformer.ops.loops.barrier import (
    optimization_barrier,
    zero_after,
    zeros_after,
)

SHAPE = (64, 64)


def optimized(function, *inputs):
    """XLA's program for a function, after its passes."""
    compiled = tf.function(function, autograph=False, jit_compile=True)
    return compiled.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")


def inputs():
    return tf.random.stateless_normal(SHAPE, (1, 2)), tf.eye(64)


def test_values_stay(execution):
    x, other = inputs()
    settled = execution(
        lambda x, other: optimization_barrier([x, 2 * x], [other])
    )(x, other)
    tf.debugging.assert_equal(settled, [x, 2 * x])
    assert int(execution(zero_after)(x)) == 0
    zeros = execution(lambda x: zeros_after(x, [2, 3], tf.float32))(x)
    tf.debugging.assert_equal(zeros, tf.zeros((2, 3)))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -0.0])
def test_values_stay_whatever_they_wait_for(value, execution):
    x = tf.fill((3,), value)
    (settled,) = execution(lambda x: optimization_barrier([tf.ones(2)], [x]))(x)
    tf.debugging.assert_equal(settled, tf.ones(2))
    assert int(execution(zero_after)(x)) == 0


def test_gradients_pass(execution):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            (y,) = optimization_barrier([x * x])
        return tape.gradient(y, x)

    tf.debugging.assert_equal(execution(gradient)(tf.constant(3.0)), 6.0)


def test_settled_tensors_stay_in_loops_of_their_own():
    def sums(x, kernel):
        for _ in range(4):
            (x,) = optimization_barrier([x + x @ kernel])
        return x

    assert optimized(sums, *inputs()).count(" while(") == 4


def test_zero_waits():
    def masks(x, kernel):
        return tf.range(8) + zero_after(x @ kernel)

    text = optimized(masks, *inputs())
    # XLA computes the product although the sum needs none of it.
    assert " while(" in text
    assert " dot(" in text or "custom-call" in text


def test_zeros_wait():
    def zeros(x, kernel):
        return zeros_after(x @ kernel, SHAPE, tf.float32)

    text = optimized(zeros, *inputs())
    assert " dot(" in text or "custom-call" in text
