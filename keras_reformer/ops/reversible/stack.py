"""The reversible stack: one custom gradient over all blocks.

The forward pass keeps the last block's output alone; the backward pass walks
back from there (`coupling.py`). One custom gradient per block would save
nothing, since each would keep its own output alive.

The stack is a pure function. All a branch reads comes in as arguments: its
trainable values, which get gradients, and its other state, the same in both
passes, so that whatever a branch draws from its seeds it draws again. Masks
and flags are handed over explicitly in both passes, because Keras's call
context is gone when the backward pass runs.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.ops.custom_vjp import first_order_gradient
from keras_reformer.ops.reversible.coupling import (
    PureFunction,
    StackOutput,
    Streams,
    Tensors,
    stack_backward,
    stack_forward,
    with_states,
)
from keras_reformer.ops.reversible.recompute import SavedDecisions
from keras_reformer.ops.reversible.scan import ScannedStack, num_scan_steps


def run_plainly(
    branches: Sequence[PureFunction], streams: Streams
) -> StackOutput:
    """The stack with ordinary backpropagation, which keeps activations."""
    trainable = [branch.trainable for branch in branches]
    # The decisions_by_branch are not read again: autodiff keeps what it needs.
    decisions_by_branch = [SavedDecisions() for _ in branches]
    return stack_forward(branches, trainable, decisions_by_branch, streams)


def run_reversibly(
    branches: Sequence[PureFunction],
    streams: Streams,
    repeat: bool = False,
) -> StackOutput:
    """The same values and gradients in memory that does not grow with depth.

    Args:
        branches: `f` and `g` of the first block, of the second, and so on.
        streams: `(x1, x2)`, float32 at least: rebuilding in lower precision
            is several per cent wrong after a few blocks.
        repeat: bool. Whether blocks of equal signatures become one loop in a
            graph, which is traced and compiled once. It copies their values.

    Returns:
        A `StackOutput`. Gradients flow to the streams and to every branch's
        `trainable`, from the streams and from the losses.
    """
    sizes = [len(branch.trainable) for branch in branches]
    repeat = repeat and not tf.executing_eagerly()
    count = num_scan_steps(branches) if repeat else 1
    passes = ScannedStack(branches, count) if count > 1 else _Unrolled(branches)
    outputs: list[StackOutput] = []

    @first_order_gradient
    def stack(x1, x2, *flat):
        trainable = _unflatten(flat, sizes)
        output = passes.forward(trainable, (x1, x2))
        outputs.append(output)

        def gradient(*upstream):
            num_losses = sum(map(len, output.losses))
            d_losses = upstream[len(upstream) - num_losses :]
            d_streams, d_trainable = passes.backward(
                trainable,
                output.streams,
                upstream[:2],
                _unflatten(d_losses, list(map(len, output.losses))),
            )
            return (*d_streams, *_flatten(d_trainable))

        changes = _flatten(change.values() for change in output.changes)
        return (*output.streams, *changes, *_flatten(output.losses)), gradient

    flat = _flatten(branch.trainable for branch in branches)
    y1, y2, *rest = stack(*streams, *flat)
    return _rebuild(outputs[-1], (y1, y2), rest)


class _Unrolled:
    """The two passes, block by block."""

    def __init__(self, branches):
        self.branches = branches
        self.decisions_by_branch = [SavedDecisions() for _ in branches]

    def forward(self, trainable, streams) -> StackOutput:
        output = stack_forward(
            self.branches, trainable, self.decisions_by_branch, streams
        )
        self.branches = with_states(self.branches, output.states)
        return output

    def backward(self, trainable, streams, d_streams, d_losses) -> tuple:
        _, *gradients = stack_backward(
            self.branches,
            trainable,
            self.decisions_by_branch,
            streams,
            d_streams,
            d_losses,
        )
        return tuple(gradients)


def _rebuild(output: StackOutput, streams, flat) -> StackOutput:
    """Puts flat outputs into the structure that the branches returned."""
    changes = output.changes
    sizes = [len(part) for part in (*changes, *output.losses)]
    parts = _unflatten(flat, sizes)
    rebuilt = [
        dict(zip(change, values, strict=True))
        for change, values in zip(changes, parts, strict=False)
    ]
    losses = parts[len(changes) :]
    return output._replace(streams=streams, changes=rebuilt, losses=losses)


def _flatten(parts) -> Tensors:
    return [tensor for part in parts for tensor in part]


def _unflatten(flat: Sequence, sizes: Sequence[int]) -> list[list]:
    flat, parts = list(flat), []
    for size in sizes:
        parts.append(flat[:size])
        flat = flat[size:]
    return parts
