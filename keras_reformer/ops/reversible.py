"""The reversible stack: one custom gradient over all blocks.

A block takes two streams and returns two (Gomez et al. 2017; Kitaev et al.
2020, section 3, equations 8 and 9):

    y1 = x1 + f(x2)        x2 = y2 - g(y1)
    y2 = x2 + g(y1)        x1 = y1 - f(x2)

The forward pass keeps the last block's output alone. The backward pass walks
the blocks in reverse: it rebuilds a block's input by the right column, and on
the way differentiates `f` and `g` at the points where they were evaluated.
One custom gradient per block would save nothing, since each would keep its
own output alive.

The stack is a pure function. All a branch reads comes in as arguments: its
trainable values, which get gradients, and its other state, the same in both
passes, so that whatever a branch draws from its seeds it draws again.
Discrete choices are replayed (`ops/replay.py`). Masks and flags are handed
over explicitly in both passes, because Keras's call context is gone when the
backward pass runs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.replay import Memory
from keras_reformer.ops.waiting import settle, zero_after

Tensors = list[tf.Tensor]


class Branch(NamedTuple):
    """One of a block's two functions, with all that it reads.

    Attributes:
        run: `(trainable, state, x) -> (y, changes, losses)`: the new values
            of what changed in `state`, by index, and a list of losses.
        trainable: values that get gradients.
        state: values that do not.
    """

    run: Callable[[Tensors, Tensors, tf.Tensor], tuple]
    trainable: Tensors
    state: Tensors


class StackOutput(NamedTuple):
    """Both streams, and each branch's changes and losses, in order."""

    streams: tuple[tf.Tensor, tf.Tensor]
    changes: list[dict[int, tf.Tensor]]
    losses: list[Tensors]


def couple(branch_output: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
    """`stream + branch_output`, in the stream's precision."""
    return stream + tf.cast(branch_output, stream.dtype)


def uncouple(branch_output: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
    """`stream - branch_output`, in the stream's precision."""
    return stream - tf.cast(branch_output, stream.dtype)


def run_plainly(
    branches: Sequence[Branch], streams: tuple[tf.Tensor, tf.Tensor]
) -> StackOutput:
    """The stack with ordinary backpropagation, which keeps activations."""
    trainable = [branch.trainable for branch in branches]
    # The memories are not read again: autodiff keeps what it needs.
    memories = [Memory() for _ in branches]
    return _run(branches, trainable, memories, streams)


def run_reversibly(
    branches: Sequence[Branch], streams: tuple[tf.Tensor, tf.Tensor]
) -> StackOutput:
    """The same values and gradients in memory that does not grow with depth.

    Args:
        branches: `f` and `g` of the first block, of the second, and so on.
        streams: `(x1, x2)`, float32 at least: rebuilding in lower precision
            is several per cent wrong after a few blocks.

    Returns:
        A `StackOutput`. Gradients flow to the streams and to every branch's
        `trainable`, from the streams and from the losses.
    """
    sizes = [len(branch.trainable) for branch in branches]
    shape_of: dict[str, list] = {}

    @first_order_gradient
    def stack(x1, x2, *flat):
        trainable = _unflatten(flat, sizes)
        memories = [Memory() for _ in branches]
        output = _run(branches, trainable, memories, (x1, x2))
        shape_of.update(changes=output.changes, losses=output.losses)

        def gradient(*upstream):
            num_losses = sum(map(len, output.losses))
            d_losses = upstream[len(upstream) - num_losses :]
            return _backward(
                branches,
                trainable,
                memories,
                output.streams,
                upstream[:2],
                _unflatten(d_losses, list(map(len, output.losses))),
            )

        changes = _flatten(change.values() for change in output.changes)
        return (*output.streams, *changes, *_flatten(output.losses)), gradient

    flat = _flatten(branch.trainable for branch in branches)
    y1, y2, *rest = stack(*streams, *flat)
    return _rebuild((y1, y2), rest, **shape_of)


def _run(branches, trainable, memories, streams) -> StackOutput:
    """The forward pass, each branch's decisions kept in its memory."""
    changes, losses = [], []
    for branch, values, memory in zip(
        branches, trainable, memories, strict=True
    ):
        with memory.record():
            streams, change, loss = _forward(branch, values, streams)
        changes.append(change)
        losses.append(loss)
    return StackOutput(streams, changes, losses)


def _rebuild(streams, flat, changes, losses) -> StackOutput:
    """Puts flat outputs into the structure that the branches returned."""
    parts = _unflatten(flat, [len(part) for part in (*changes, *losses)])
    rebuilt = [
        dict(zip(change, values, strict=True))
        for change, values in zip(changes, parts, strict=False)
    ]
    return StackOutput(streams, rebuilt, parts[len(changes) :])


def _forward(branch: Branch, trainable: Tensors, streams) -> tuple:
    """One half of a block: the streams change places after it."""
    x1, x2 = streams
    y, changes, losses = branch.run(trainable, _state(branch, x2), x2)
    (sum_,) = settle([couple(y, x1)])
    return (x2, sum_), changes, losses


def _backward(
    branches, trainable, memories, streams, d_streams, d_losses
) -> tuple:
    """Walks the halves in reverse; gradients of streams and of weights."""
    gradients = []
    for branch, values, memory, d_loss in zip(
        reversed(branches),
        reversed(trainable),
        reversed(memories),
        reversed(d_losses),
        strict=True,
    ):
        x2, sum_ = streams
        x2, d_passed, d_sum = settle(
            (x2, *d_streams), gradients[-1] if gradients else ()
        )
        with memory.replay():
            x1, d_x2, d_values = _half_backward(
                branch, values, x2, sum_, d_sum, d_loss
            )
        streams, d_streams = (x1, x2), (d_sum, d_passed + d_x2)
        gradients.append(d_values)
    return (*d_streams, *_flatten(reversed(gradients)))


def _half_backward(branch, trainable, x2, sum_, d_sum, d_losses) -> tuple:
    """Rebuilds one half's input and differentiates it there.

    Forward was `(x1, x2) -> (x2, x1 + f(x2))`.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch((x2, *trainable))
        y, _, losses = branch.run(trainable, _state(branch, x2), x2)
    d_x2, *d_trainable = tape.gradient(
        (y, *losses),
        (x2, *trainable),
        output_gradients=(tf.cast(d_sum, y.dtype), *d_losses),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return uncouple(y, sum_), d_x2, d_trainable


def _state(branch: Branch, x: tf.Tensor) -> Tensors:
    """A branch's state, its seeds not before the branch's input.

    A mask needs its seed alone, so an executor would make the masks of all
    blocks at once; and it is one expression in both passes, so a compiler
    that merges the two would keep it alive in between.
    """
    zero = zero_after(x)
    return [
        value + tf.cast(zero, value.dtype) if value.dtype.is_integer else value
        for value in branch.state
    ]


def _flatten(parts) -> Tensors:
    return [tensor for part in parts for tensor in part]


def _unflatten(flat: Sequence, sizes: Sequence[int]) -> list[list]:
    flat, parts = list(flat), []
    for size in sizes:
        parts.append(flat[:size])
        flat = flat[size:]
    return parts
