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
        if not tf.executing_eagerly():
            outputs, gradient = function(*inputs)
            return outputs, lambda *upstream: _guard(gradient(*upstream))
        # A tape around would record, and keep, all that happens inside.
        outputs, gradient = function(*map(tf.stop_gradient, inputs))
        return outputs, lambda *upstream: _guard(gradient(*upstream), inputs)

    return wrapped


def _guard(gradients, inputs=()):
    """The gradients, which refuse to be differentiated.

    Args:
        gradients: a tensor or a structure of tensors and None.
        inputs: tensors by which a gradient is refused too, where nothing
            recorded that the gradients depend on them.
    """
    flat = tf.nest.flatten(gradients)
    tensors = [tensor for tensor in flat if tensor is not None]

    @tf.custom_gradient
    def refuse(*tensors_and_inputs):
        def raise_error(*_):
            raise LookupError(_MESSAGE)

        return tensors_and_inputs[: len(tensors)], raise_error

    if inputs:
        tensors = refuse(*tensors, *inputs)
    else:
        tensors = [
            tf.raw_ops.PreventGradient(input=tensor, message=_MESSAGE)
            for tensor in tensors
        ]
    guarded = iter(tensors)
    return tf.nest.pack_sequence_as(
        gradients, [None if x is None else next(guarded) for x in flat]
    )


_MESSAGE = (
    "Second-order gradients through keras_reformer's attention, reversible "
    "and chunked layers are not supported. Expected one differentiation only. "
    "Where you need two, use `recompute=False`, "
    "`keras.layers.MultiHeadAttention` and `keras.layers.Dense`."
)
