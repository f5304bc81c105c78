"""Gradients written by hand, and what they promise."""

import functools
from collections.abc import Callable

import tensorflow as tf


def first_order_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient` whose gradient may not be differentiated again.

    A hand-written gradient is exact, but the gradient of its own code would
    run through loops that keep every step alive, or would take as constants
    what the forward pass saved. Asking for it raises a `LookupError` that
    says so, instead of returning a wrong number.

    Args:
        function: takes tensors, returns `(outputs, gradient)` as
            `tf.custom_gradient` expects. It must not read variables: hand
            their values over as arguments.

    Returns:
        Function of the same tensors that returns the outputs.
    """

    @tf.custom_gradient
    @functools.wraps(function)
    def wrapped(*inputs):
        if tf.executing_eagerly():
            # A tape around would record, and keep, all that happens inside.
            inputs = [tf.stop_gradient(x) for x in inputs]
        outputs, gradient = function(*inputs)

        def guarded(*upstream):
            return tf.nest.map_structure(_guard, gradient(*upstream))

        return outputs, guarded

    return wrapped


def _guard(gradient: tf.Tensor | None) -> tf.Tensor | None:
    if gradient is None:
        return None
    return tf.raw_ops.PreventGradient(
        input=gradient,
        message=(
            "Second-order gradients through keras_reformer's attention, "
            "reversible and chunked layers are not supported. Expected one "
            "differentiation only. Where you need two, use "
            "`recompute=False`, `keras.layers.MultiHeadAttention` and "
            "`keras.layers.Dense`."
        ),
    )
