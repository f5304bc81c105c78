"""Gradients beside finite differences, in float64."""

import numpy as np
import tensorflow as tf

_STEP = 1e-6


def check_finite_differences(loss, arguments, rng, rtol=1e-6, atol=1e-7):
    """Each argument's gradient, along a random direction of its own.

    Args:
        loss: function of a list of tensors to a scalar.
        arguments: list of float64 tensors.
        rng: NumPy random generator of the directions.
        rtol: float. Relative tolerance.
        atol: float. Absolute tolerance.
    """
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        total = loss(arguments)
    gradients = tape.gradient(total, arguments, unconnected_gradients="zero")
    for index, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        ahead, behind = list(arguments), list(arguments)
        ahead[index] = arguments[index] + _STEP * direction
        behind[index] = arguments[index] - _STEP * direction
        numeric = (loss(ahead) - loss(behind)) / (2 * _STEP)
        analytic = tf.reduce_sum(tf.convert_to_tensor(gradient) * direction)
        np.testing.assert_allclose(analytic, numeric, rtol=rtol, atol=atol)
