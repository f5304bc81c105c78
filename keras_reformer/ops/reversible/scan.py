"""Scan over layers: a stack of equal blocks as a loop, traced once.

An unrolled graph takes tracing time, compiling time and memory for each
block, at any length of the sequence. Blocks of one signature differ in their
values alone, so each step of the loop, one period of the stack, takes its
values out of stacked tensors. Decisions, changes and losses of the steps are
stacked likewise; the backward pass reads them in reverse.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops.reversible.coupling import (
    PureFunction,
    StackOutput,
    Streams,
    Tensors,
    shares_state,
    stack_backward,
    stack_forward,
    with_states,
    without_tensors,
)
from keras_reformer.ops.reversible.recompute import SavedDecisions

_TENSOR = object()


def num_scan_steps(branches: Sequence[PureFunction]) -> int:
    """How often the shortest period of the branches' signatures is repeated.

    A layer that is used several times hands its state on from one use to the
    next, which a scan over stacked values does not.
    """
    if shares_state(branches):
        return 1
    signatures = [branch.signature for branch in branches]
    for period in range(2, len(signatures)):
        first = signatures[:period]
        repeated = first * (len(signatures) // period)
        if None not in first and repeated == signatures:
            return len(signatures) // period
    return 1


class _Residuals(NamedTuple):
    """What lives between the passes.

    Attributes:
        streams: the last block's output.
        trainable: of each branch, arguments.
        states: of each branch of a step, stacked over steps.
        decisions: of each branch of a step, stacked over steps.
        context: argument.
    """

    streams: Streams
    trainable: Sequence[Tensors]
    states: Sequence[Tensors]
    decisions: Sequence[Sequence]
    context: Sequence[tf.Tensor]


class ScannedStack:
    """The two passes of a stack, each a loop over its periods.

    Args:
        branches: of all steps: their functions; the tensors they read are
            arguments.
        count: int. Number of steps.
    """

    def __init__(self, branches: Sequence[PureFunction], count: int):
        self.count = count
        self.period = without_tensors(branches[: len(branches) // count])

    def forward(
        self,
        streams: Streams,
        trainable: Sequence[Tensors],
        states: Sequence[Tensors],
        context: Sequence[tf.Tensor],
    ) -> tuple[StackOutput, _Residuals]:
        stacked = self._stack(trainable), self._stack(states)
        step, template = self._trace(stacked, streams, context)

        def body(index, streams, arrays):
            values = tf.nest.flatten(_at(stacked, index))
            *streams, tensors = step(*streams, *values)
            arrays = [
                array.write(index, x)
                for array, x in zip(arrays, tensors, strict=True)
            ]
            return index + 1, tuple(streams), arrays

        *_, specs = step.structured_outputs
        arrays = [
            tf.TensorArray(x.dtype, self.count, element_shape=x.shape)
            for x in specs
        ]
        _, streams, arrays = self._loop(body, streams, arrays)
        changes, losses, decisions = _fill(
            template, [array.stack() for array in arrays]
        )
        output = StackOutput(
            streams, self._unstack(changes), self._unstack(losses)
        )
        return output, _Residuals(
            streams, trainable, stacked[1], decisions, context
        )

    def backward(
        self,
        residuals: _Residuals,
        d_streams: Streams,
        d_changes: Sequence,
        d_losses: Sequence[Tensors],
    ) -> tuple:
        """Gradients with respect to streams, trainable values and context."""
        streams, trainable, states, decisions, context = residuals
        d_losses = self._stack(d_losses)
        # A value is not read again once its step has computed its gradient,
        # which is written in its place.
        arrays = tf.nest.map_structure(_array_of, self._stack(trainable))

        def body(step, state, arrays):
            index = self.count - 1 - step
            streams, d_streams, d_context = state
            step_states, d_loss = _at((states, d_losses), index)
            streams, d_streams, d_values, d_context = stack_backward(
                with_states(self.period, step_states),
                tf.nest.map_structure(lambda x: x.read(index), arrays),
                [SavedDecisions(x) for x in _at(decisions, index)],
                streams,
                d_streams,
                d_loss,
                context,
                d_context,
            )
            arrays = tf.nest.map_structure(
                lambda array, x: array.write(index, x), arrays, d_values
            )
            return step + 1, (streams, d_streams, list(d_context)), arrays

        d_context = [tf.zeros_like(x) for x in context]
        _, (_, d_streams, d_context), arrays = self._loop(
            body, (tuple(streams), tuple(d_streams), d_context), arrays
        )
        d_stacked = tf.nest.map_structure(lambda array: array.stack(), arrays)
        return d_streams, self._unstack(d_stacked), None, d_context

    def _loop(self, body, state, arrays):
        return tf.while_loop(
            lambda step, *state: step < self.count,
            body,
            (tf.constant(0), state, arrays),
            parallel_iterations=1,
            maximum_iterations=self.count,
        )

    def _trace(self, stacked, streams, context) -> tuple:
        """A step as a graph, and the structure of what it returns.

        A loop must know how many arrays it fills before its body is traced.
        """
        templates = []

        def step(x1, x2, *flat):
            trainable, states = tf.nest.pack_sequence_as(stacked, flat)
            decisions = [SavedDecisions() for _ in self.period]
            output, _ = stack_forward(
                with_states(self.period, states),
                trainable,
                decisions,
                (x1, x2),
                context,
            )
            tensors, template = _tensors_of(
                (output.changes, output.losses, [x.values for x in decisions])
            )
            templates.append(template)
            return *output.streams, tensors

        specs = [
            tf.TensorSpec(x.shape[1:], x.dtype)
            for x in tf.nest.flatten(stacked)
        ]
        graph = tf.function(step, autograph=False).get_concrete_function(
            *(tf.TensorSpec(x.shape, x.dtype) for x in streams), *specs
        )
        return graph, templates[-1]

    def _stack(self, parts: Sequence) -> list:
        """From a list over all branches to one over a period's, stacked."""
        steps = [
            list(parts[first : first + len(self.period)])
            for first in range(0, len(parts), len(self.period))
        ]
        return tf.nest.map_structure(lambda *xs: tf.stack(xs), *steps)

    def _unstack(self, stacked: Sequence) -> list:
        """The inverse of `_stack`; static values are the same in all steps."""
        columns = [
            tf.unstack(x, self.count) if tf.is_tensor(x) else [x] * self.count
            for x in tf.nest.flatten(stacked)
        ]
        steps = (
            [column[index] for column in columns] for index in range(self.count)
        )
        return [
            part
            for step in steps
            for part in tf.nest.pack_sequence_as(stacked, step)
        ]


def _array_of(stacked: tf.Tensor) -> tf.TensorArray:
    array = tf.TensorArray(
        stacked.dtype,
        stacked.shape[0],
        element_shape=stacked.shape[1:],
        clear_after_read=False,
    )
    return array.unstack(stacked)


def _at(stacked, index):
    """One step's part of a structure; static values are the same in all."""
    return tf.nest.map_structure(
        lambda x: x[index] if tf.is_tensor(x) else x, stacked
    )


def _tensors_of(structure) -> tuple[list, Any]:
    """The tensors in a structure, and the structure without them."""
    leaves = tf.nest.flatten(structure)
    template = tf.nest.map_structure(
        lambda x: _TENSOR if tf.is_tensor(x) else x, structure
    )
    return [x for x in leaves if tf.is_tensor(x)], template


def _fill(template, tensors: Sequence[tf.Tensor]):
    remaining = iter(tensors)
    return tf.nest.map_structure(
        lambda x: next(remaining) if x is _TENSOR else x, template
    )
