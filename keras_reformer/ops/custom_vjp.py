"""Gradients written by hand, and what they promise."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# The collection of a graph that owns the gradients of its operations.
_GRADIENTS = "keras_reformer_gradients"


def custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient` that keeps no graph alive.

    In a graph TensorFlow registers each gradient under a name of its own, in
    a registry that is never emptied. What a gradient captures would live for
    ever: its tensors, their graph, the variables that the graph reads. Here
    the graph owns the gradient, and the registry refers to it weakly.

    Args:
        function: takes tensors, returns `(outputs, gradient)` as
            `tf.custom_gradient` expects, with `outputs` a tensor or a
            sequence of them. It must not read variables: hand their values
            over as arguments.

    Returns:
        Function of the same tensors that returns a tensor, or a list.
    """

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(function)
    def wrapped(*inputs):
        if tf.executing_eagerly():
            return tf.custom_gradient(function)(*inputs)
        results: list[Any] = []
        is_tensor = False

        def weak(*inputs):
            nonlocal is_tensor
            outputs, gradient = function(*inputs)
            is_tensor = tf.is_tensor(outputs)
            results.extend(tf.nest.flatten(outputs))
            return results, _owned_by_graph(gradient)

        outputs = tf.custom_gradient(weak)(*inputs)
        # What was registered holds this list too, but asks for its length
        # alone.
        results[:] = [None] * len(results)
        return outputs[0] if is_tensor else outputs

    return wrapped


def _owned_by_graph(gradient: Callable) -> Callable:
    """The same function, which lives as long as the graph being built."""
    graph = tf.compat.v1.get_default_graph()
    graph.add_to_collection(_GRADIENTS, gradient)
    reference = weakref.ref(gradient)
    return lambda *upstream: reference()(*upstream)


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

    @custom_gradient
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

    @custom_gradient
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
