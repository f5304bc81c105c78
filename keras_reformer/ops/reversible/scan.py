"""A stack of equal blocks, as a loop whose body is traced once.

A graph that spells out every block takes tracing time, compiling time and
memory for each of them, at any length of the sequence. Blocks of one signature
differ in their values alone, so a loop over turns, each turn a period of the
stack, takes the turn's values out of stacks. What a turn decides, draws and
adds to the losses is stacked likewise; the backward pass reads it in reverse.
"""

from collections.abc import Sequence
from typing import Any

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
)
from keras_reformer.ops.reversible.recompute import SavedDecisions

_TENSOR = object()


def num_scan_steps(branches: Sequence[PureFunction]) -> int:
    """How often the shortest period of the branches' signatures is repeated.

    A stack is cut into whole blocks, of two branches each. A layer at several
    places hands its state on from one to the next, which a loop over values
    from stacks does not.
    """
    if shares_state(branches):
        return 1
    signatures = [branch.signature for branch in branches]
    for period in range(2, len(signatures), 2):
        first = signatures[:period]
        repeated = first * (len(signatures) // period)
        if None not in first and repeated == signatures:
            return len(signatures) // period
    return 1


class ScannedStack:
    """The two passes of a stack, each a loop over its periods.

    Args:
        branches: those of all turns.
        count: int. Number of turns.
    """

    def __init__(self, branches: Sequence[PureFunction], count: int):
        self.count = count
        self.period = list(branches[: len(branches) // count])
        self.states = self._stack([branch.state for branch in branches])
        self.decisions: list[Any] = []

    def forward(
        self, trainable: Sequence[Tensors], streams: Streams
    ) -> StackOutput:
        stacked = self._stack(trainable)
        turn, template = self._trace(stacked, streams)

        def body(index, streams, arrays):
            values = tf.nest.flatten(_at((stacked, self.states), index))
            *streams, found = turn(*streams, *values)
            arrays = [
                array.write(index, x)
                for array, x in zip(arrays, found, strict=True)
            ]
            return index + 1, tuple(streams), arrays

        *_, specs = turn.structured_outputs
        _, streams, arrays = self._loop(
            body,
            streams,
            [
                tf.TensorArray(x.dtype, self.count, element_shape=x.shape)
                for x in specs
            ],
        )
        found = _fill(template, [array.stack() for array in arrays])
        changes, losses, self.decisions = found
        return StackOutput(
            streams, [], self._unstack(changes), self._unstack(losses)
        )

    def backward(
        self,
        trainable: Sequence[Tensors],
        streams: Streams,
        d_streams: Streams,
        d_losses: Sequence[Tensors],
    ) -> tuple[Streams, list[Tensors]]:
        """Gradients by the streams and by each branch's trainable values."""
        d_losses = self._stack(d_losses)
        # A value is not read again once its turn has its gradient, which
        # takes its place.
        arrays = tf.nest.map_structure(_array_of, self._stack(trainable))

        def body(turn, state, arrays):
            index = self.count - 1 - turn
            streams, d_streams = state
            states, d_loss = _at((self.states, d_losses), index)
            streams, d_streams, d_values = stack_backward(
                with_states(self.period, states),
                tf.nest.map_structure(lambda x: x.read(index), arrays),
                [SavedDecisions(x) for x in _at(self.decisions, index)],
                streams,
                d_streams,
                d_loss,
            )
            arrays = tf.nest.map_structure(
                lambda array, x: array.write(index, x), arrays, d_values
            )
            return turn + 1, (streams, d_streams), arrays

        _, (_, d_streams), arrays = self._loop(
            body, (tuple(streams), tuple(d_streams)), arrays
        )
        gradients = tf.nest.map_structure(lambda array: array.stack(), arrays)
        return d_streams, self._unstack(gradients)

    def _loop(self, body, state, arrays):
        return tf.while_loop(
            lambda turn, *state: turn < self.count,
            body,
            (tf.constant(0), state, arrays),
            parallel_iterations=1,
            maximum_iterations=self.count,
        )

    def _trace(self, stacked, streams) -> tuple:
        """A turn as a graph, and the structure of what it returns.

        A loop must know how many arrays it fills before its body is traced.
        """
        templates = []

        def turn(x1, x2, *flat):
            values, states = tf.nest.pack_sequence_as(
                (stacked, self.states), flat
            )
            decisions_by_branch = [SavedDecisions() for _ in self.period]
            branches = with_states(self.period, states)
            output = stack_forward(
                branches, values, decisions_by_branch, (x1, x2)
            )
            found = (
                output.changes,
                output.losses,
                [decisions.values for decisions in decisions_by_branch],
            )
            tensors, template = _tensors_of(found)
            templates.append(template)
            return *output.streams, tensors

        specs = [
            tf.TensorSpec(x.shape[1:], x.dtype)
            for x in tf.nest.flatten((stacked, self.states))
        ]
        graph = tf.function(turn, autograph=False).get_concrete_function(
            *(tf.TensorSpec(x.shape, x.dtype) for x in streams), *specs
        )
        return graph, templates[-1]

    def _stack(self, parts: Sequence) -> list:
        """From a list over all branches to one over a period's, stacked."""
        turns = [
            list(parts[first : first + len(self.period)])
            for first in range(0, len(parts), len(self.period))
        ]
        return tf.nest.map_structure(lambda *xs: tf.stack(xs), *turns)

    def _unstack(self, stacked: Sequence) -> list:
        """The other way round; what is no tensor is the same in all turns."""
        columns = [
            tf.unstack(x, self.count) if tf.is_tensor(x) else [x] * self.count
            for x in tf.nest.flatten(stacked)
        ]
        turns = (
            [column[index] for column in columns] for index in range(self.count)
        )
        return [
            part
            for turn in turns
            for part in tf.nest.pack_sequence_as(stacked, turn)
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
    """One turn's part of a structure; what is no tensor is the same in all."""
    return tf.nest.map_structure(
        lambda x: x[index] if tf.is_tensor(x) else x, stacked
    )


def _tensors_of(structure) -> tuple[list, Any]:
    """The tensors in a structure, and what else it is made of."""
    leaves = tf.nest.flatten(structure)
    template = tf.nest.map_structure(
        lambda x: _TENSOR if tf.is_tensor(x) else x, structure
    )
    return [x for x in leaves if tf.is_tensor(x)], template


def _fill(template, tensors: Sequence[tf.Tensor]):
    tensors = iter(tensors)
    return tf.nest.map_structure(
        lambda x: next(tensors) if x is _TENSOR else x, template
    )
