"""Gradient checkpointing: one function whose activations are recomputed.

What lives between the passes is the function's inputs and what it read and
decided, so that the backward pass runs the same function again (Chen et al.
2016, "Training deep nets with sublinear memory cost"). A reversible stack
(`stack.py`) keeps no inputs either; this takes functions of any shape.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.barrier import optimization_barrier
from keras_reformer.ops.reversible.coupling import (
    PureFunction,
    Tensors,
    state_after,
)
from keras_reformer.ops.reversible.recompute import SavedDecisions


def run_checkpointed(function: PureFunction, inputs: Any) -> tuple:
    """The function's results, whose activations nobody keeps.

    Args:
        function: its `run` takes a structure of inputs.
        inputs: structure of tensors, None and static values.

    Returns:
        What `run` returns: outputs, changes and losses. Gradients flow to
        the inputs and to `trainable`, from the outputs and the losses, as far
        as they are floats.
    """
    passes = _Passes(function.run)
    return custom_vjp(passes.forward, passes.backward)(
        inputs, list(function.trainable), list(function.state)
    )


class _Residuals(NamedTuple):
    """What lives between the passes.

    Attributes:
        inputs: an argument.
        trainable: an argument.
        state: an argument.
        decisions: to be replayed.
    """

    inputs: Any
    trainable: Tensors
    state: Tensors
    decisions: SavedDecisions


class _Passes(NamedTuple):
    """The two passes.

    Attributes:
        run: of the function; the tensors that it reads are arguments.
    """

    run: Callable[..., tuple]

    def forward(
        self, inputs: Any, trainable: Tensors, state: Tensors
    ) -> tuple[tuple, _Residuals]:
        numbers = [x for x in tf.nest.flatten(inputs) if _is_number(x)]
        decisions = SavedDecisions()
        with decisions.record():
            results = self.run(trainable, _state_after(state, numbers), inputs)
        return results, _Residuals(inputs, trainable, state, decisions)

    def backward(
        self, residuals: _Residuals, d_outputs: Any, _, d_losses: Tensors
    ) -> tuple:
        """Gradients with respect to inputs and trainable values."""
        inputs, trainable, state, decisions = residuals
        d_outputs = tf.nest.flatten(d_outputs)
        upstream = list(filter(_is_float, (*d_outputs, *d_losses)))
        inputs = _after(inputs, upstream)
        sources = list(filter(_is_float, tf.nest.flatten(inputs)))
        state = _state_after(state, upstream)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch((sources, trainable))
            with decisions.replay():
                outputs, _, losses = self.run(trainable, state, inputs)
        pairs = zip(tf.nest.flatten(outputs), d_outputs, strict=True)
        targets = [pair for pair in pairs if _is_float(pair[0])]
        targets += zip(losses, d_losses, strict=True)
        d_sources, d_trainable = tape.gradient(
            [y for y, _ in targets],
            (sources, trainable),
            output_gradients=[d_y for _, d_y in targets],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        d_inputs = _with_floats(inputs, d_sources)
        # Of a table that is gathered from, the gradient is sparse.
        return d_inputs, [tf.convert_to_tensor(x) for x in d_trainable], None


def _after(inputs: Any, upstream: Tensors) -> Any:
    """The inputs, not before the gradients from above.

    Else a compiler would find the same function of the same inputs in both
    passes, and keep the forward pass's activations.
    """
    leaves = tf.nest.flatten(inputs)
    waiting = optimization_barrier(list(filter(_is_number, leaves)), upstream)
    remaining = iter(waiting)
    leaves = [next(remaining) if _is_number(x) else x for x in leaves]
    return tf.nest.pack_sequence_as(inputs, leaves)


def _state_after(state: Tensors, tensors: Tensors) -> Tensors:
    return state_after(state, tensors[0]) if tensors else state


def _with_floats(structure: Any, floats: Tensors) -> Any:
    """The structure with these at its float tensors, None elsewhere."""
    remaining = iter(floats)
    leaves = [
        next(remaining) if _is_float(x) else None
        for x in tf.nest.flatten(structure)
    ]
    return tf.nest.pack_sequence_as(structure, leaves)


def _is_float(x: Any) -> bool:
    return tf.is_tensor(x) and x.dtype.is_floating


def _is_number(x: Any) -> bool:
    return _is_float(x) or (tf.is_tensor(x) and x.dtype.is_integer)
