"""The reversible stack: one custom gradient over all blocks.

The residuals are the last block's output, not those of the blocks before: the
backward pass reconstructs them (`coupling.py`). One custom gradient per block
would save nothing, since each would have its own output for a residual.

The stack is a pure function. All a branch reads comes in as arguments: its
trainable values, which get gradients, and its other state, the same in both
passes, so that whatever a branch draws from its seeds it draws again. Masks
and flags are handed over explicitly in both passes, because Keras's call
context is gone when the backward pass runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.reversible.coupling import (
    PureFunction,
    StackOutput,
    Streams,
    Tensors,
    stack_backward,
    stack_forward,
    with_states,
    without_tensors,
)
from keras_reformer.ops.reversible.recompute import SavedDecisions
from keras_reformer.ops.reversible.scan import ScannedStack, num_scan_steps


def run_plainly(
    branches: Sequence[PureFunction],
    streams: Streams,
    context: Sequence[tf.Tensor] = (),
) -> StackOutput:
    """The stack with ordinary backpropagation, which keeps activations."""
    trainable = [branch.trainable for branch in branches]
    # Not read again: automatic differentiation keeps what it needs.
    decisions = [SavedDecisions() for _ in branches]
    output, _ = stack_forward(branches, trainable, decisions, streams, context)
    return output


def run_reversibly(
    branches: Sequence[PureFunction],
    streams: Streams,
    repeat: bool = False,
    context: Sequence[tf.Tensor] = (),
) -> StackOutput:
    """The same values and gradients in memory that does not grow with depth.

    Args:
        branches: those of the first block, of the second, and so on.
        streams: `(x1, x2)`, float32 at least: reconstructing in lower
            precision is several per cent wrong after a few blocks.
        repeat: bool. Whether blocks of equal signatures become one loop in a
            graph, which is traced and compiled once. It copies their values.
        context: what all branches may read besides.

    Returns:
        A `StackOutput`. Gradients flow to the streams, to every branch's
        `trainable` and to the context, from the streams and from the losses.
    """
    repeat = repeat and not tf.executing_eagerly()
    count = num_scan_steps(branches) if repeat else 1
    passes = ScannedStack(branches, count) if count > 1 else _Unrolled(branches)
    stack = custom_vjp(passes.forward, passes.backward)
    return stack(
        tuple(streams),
        [list(branch.trainable) for branch in branches],
        [list(branch.state) for branch in branches],
        list(context),
    )


class _Residuals(NamedTuple):
    """What lives between the passes.

    Attributes:
        streams: the last block's output.
        trainable: of each branch, arguments.
        states: what each branch read in the forward pass.
        decisions: of each branch, to be replayed.
        context: argument.
    """

    streams: Streams
    trainable: Sequence[Tensors]
    states: Sequence[Tensors]
    decisions: Sequence[SavedDecisions]
    context: Sequence[tf.Tensor]


class _Unrolled:
    """The two passes, block by block.

    Args:
        branches: their functions; the tensors they read are arguments.
    """

    def __init__(self, branches: Sequence[PureFunction]):
        self.branches = without_tensors(branches)

    def forward(
        self,
        streams: Streams,
        trainable: Sequence[Tensors],
        states: Sequence[Tensors],
        context: Sequence[tf.Tensor],
    ) -> tuple[StackOutput, _Residuals]:
        branches = with_states(self.branches, states)
        decisions = [SavedDecisions() for _ in branches]
        output, states = stack_forward(
            branches, trainable, decisions, streams, context
        )
        return output, _Residuals(
            output.streams, trainable, states, decisions, context
        )

    def backward(
        self,
        residuals: _Residuals,
        d_streams: Streams,
        d_changes: Sequence,
        d_losses: Sequence[Tensors],
    ) -> tuple:
        """Gradients with respect to streams, trainable values and context."""
        context = residuals.context
        _, d_streams, d_trainable, d_context = stack_backward(
            with_states(self.branches, residuals.states),
            residuals.trainable,
            residuals.decisions,
            residuals.streams,
            d_streams,
            d_losses,
            context,
            [tf.zeros_like(x) for x in context],
        )
        return d_streams, d_trainable, None, d_context
