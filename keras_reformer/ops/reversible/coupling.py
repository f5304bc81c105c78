"""Additive coupling of reversible blocks, and its inverse.

A block takes two streams and returns two (Gomez et al. 2017; Kitaev et al.
2020, section 3, equations 8 and 9):

    y1 = x1 + f(x2)        x2 = y2 - g(y1)
    y2 = x2 + g(y1)        x1 = y1 - f(x2)

The backward pass reconstructs a block's input by the right column, and
differentiates `f` and `g` at the points where they were evaluated. All a
branch reads comes in as arguments, and discrete decisions are replayed
(`recompute.py`).

What all branches may read besides, such as an encoder's outputs in a decoder,
is the context. Its gradient is the sum of those of all branches.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.loops.barrier import optimization_barrier, zero_after
from keras_reformer.ops.reversible.recompute import SavedDecisions

Tensors = list[tf.Tensor]
Streams = tuple[tf.Tensor, tf.Tensor]


class Change(NamedTuple):
    """What a branch's run makes of a value of its state.

    Attributes:
        value: the new value.
        weight: its weight in the mean over replicas, a list of one tensor;
            empty where the value is no such mean.
    """

    value: tf.Tensor
    weight: Sequence[tf.Tensor] = ()


class PureFunction(NamedTuple):
    """One of a block's two functions, with all that it reads.

    Attributes:
        run: `(trainable, state, x, *context) -> (y, changes, losses)`: a
            `Change` of what changed in `state`, by index, and a list of
            losses.
        trainable: values that get gradients.
        state: values that do not.
        keys: one for each of `state`, equal where branches share it.
        signature: equal where `run` is the same function, but for what it
            reads; None where that is not known.
    """

    run: Callable[..., tuple]
    trainable: Tensors
    state: Tensors
    keys: Sequence[Hashable] = ()
    signature: Hashable = None


class StackOutput(NamedTuple):
    """Both streams, and of each branch what it changed and added.

    Attributes:
        streams: `(y1, y2)` of the last block.
        changes: of each branch, a `Change` of its state by index.
        losses: of each branch, a list of them.
    """

    streams: Streams
    changes: list[dict[int, Change]]
    losses: list[Tensors]


def couple(branch_output: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
    """`stream + branch_output`, in the stream's precision."""
    return stream + _like(branch_output, stream)


def uncouple(branch_output: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
    """`stream - branch_output`, in the stream's precision."""
    return stream - _like(branch_output, stream)


def _like(branch_output: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
    """In the stream's precision, and of its shape, which a layer may lose."""
    cast = tf.cast(branch_output, stream.dtype)
    return tf.ensure_shape(cast, stream.shape)


def stack_forward(
    branches: Sequence[PureFunction],
    trainable: Sequence[Tensors],
    decisions_by_branch: Sequence[SavedDecisions],
    streams: Streams,
    context: Sequence[tf.Tensor] = (),
) -> tuple[StackOutput, list[Tensors]]:
    """The forward pass; each branch's decisions are recorded.

    A layer that is used several times in the stack reads what it changed the
    time before, so that it draws anew.

    Returns:
        The output, and the state that each branch read.
    """
    states, changes, losses, latest = [], [], [], {}
    for branch, values, decisions in zip(
        branches, trainable, decisions_by_branch, strict=True
    ):
        branch = _with_latest_state(branch, latest)
        with decisions.record():
            streams, change, loss = _forward(branch, values, streams, context)
        latest.update((branch.keys[i], x.value) for i, x in change.items())
        states.append(branch.state)
        changes.append(change)
        losses.append(loss)
    return StackOutput(streams, changes, losses), states


def _with_latest_state(branch: PureFunction, latest: dict) -> PureFunction:
    pairs = zip(branch.keys, branch.state, strict=True)
    return branch._replace(state=[latest.get(key, x) for key, x in pairs])


def with_states(
    branches: Sequence[PureFunction], states: Sequence[Tensors]
) -> list[PureFunction]:
    """The branches, with the state that they read in a run."""
    return [
        branch._replace(state=state)
        for branch, state in zip(branches, states, strict=True)
    ]


def without_tensors(branches: Sequence[PureFunction]) -> list[PureFunction]:
    """The branches, without the tensors that they read."""
    return [branch._replace(trainable=[], state=[]) for branch in branches]


def shares_state(branches: Sequence[PureFunction]) -> bool:
    """Whether branches share a value of their state."""
    keys = [key for branch in branches for key in branch.keys]
    return len(set(keys)) < len(keys)


def _forward(branch, trainable, streams, context) -> tuple:
    """One half of a block, after which the streams are swapped."""
    x1, x2 = streams
    state = state_after(branch.state, x2)
    y, changes, losses = branch.run(trainable, state, x2, *context)
    (sum_,) = optimization_barrier([couple(y, x1)])
    return (x2, sum_), changes, losses


def stack_backward(
    branches: Sequence[PureFunction],
    trainable: Sequence[Tensors],
    decisions_by_branch: Sequence[SavedDecisions],
    streams: Streams,
    d_streams: Streams,
    d_losses: Sequence[Tensors],
    context: Sequence[tf.Tensor] = (),
    d_context: Sequence[tf.Tensor] = (),
) -> tuple[Streams, Streams, list[Tensors], Sequence[tf.Tensor]]:
    """The backward pass, from the streams that `stack_forward` returned.

    Returns:
        streams: the first block's input, reconstructed.
        d_streams: gradients with respect to it.
        d_trainable: gradients with respect to each branch's trainable values.
        d_context: gradients with respect to the context, added to those
            given.
    """
    gradients = []
    for branch, values, decisions, d_loss in zip(
        reversed(branches),
        reversed(trainable),
        reversed(decisions_by_branch),
        reversed(d_losses),
        strict=True,
    ):
        x2, sum_ = streams
        done = (*gradients[-1], *d_context) if gradients else ()
        x2, d_passed, d_sum = optimization_barrier((x2, *d_streams), done)
        with decisions.replay():
            x1, d_sum, d_x2, d_values, d_used = _half_backward(
                branch, values, x2, sum_, d_sum, d_loss, context
            )
        d_context = _accumulate(d_context, d_used)
        streams, d_streams = (x1, x2), (d_sum, couple(d_x2, d_passed))
        gradients.append(d_values)
    return streams, d_streams, gradients[::-1], d_context


def _accumulate(totals, parts) -> Sequence[tf.Tensor]:
    """The totals with the parts, None for nothing, added at once.

    A sum of all blocks' parts at the end would keep all of them alive.
    """
    if all(part is None for part in parts):
        return totals
    pairs = zip(totals, parts, strict=True)
    return optimization_barrier(
        [total if part is None else total + part for total, part in pairs]
    )


def _half_backward(
    branch, trainable, x2, sum_, d_sum, d_losses, context
) -> tuple:
    """Reconstructs one half's input and differentiates at it.

    The forward pass was `(x1, x2) -> (x2, x1 + f(x2))`.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        # Within a loop, what is outside of it is not seen by a tape.
        context = [tf.identity(x) for x in context]
        tape.watch((x2, *trainable, *context))
        state = state_after(branch.state, x2)
        y, _, losses = branch.run(trainable, state, x2, *context)
    # The reconstructed stream first: it frees the sum and the branch's output.
    x1, d_sum = optimization_barrier((uncouple(y, sum_), d_sum))
    sources = (x2, *trainable)
    gradients = tape.gradient(
        (y, *losses),
        (*sources, *context),
        output_gradients=(tf.cast(d_sum, y.dtype), *d_losses),
    )
    d_x2, *d_trainable = [
        tf.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(sources, gradients, strict=False)
    ]
    return x1, d_sum, d_x2, d_trainable, gradients[len(sources) :]


def state_after(state: Tensors, x: tf.Tensor) -> Tensors:
    """A function's state, with seeds that depend on another tensor.

    A dropout mask needs its seed alone, so an executor would compute the
    masks of all blocks at once; and it is one expression in both passes, so a
    compiler that merges the two would keep it alive in between.

    Args:
        state: as in `PureFunction`.
        x: in the forward pass the function's input, in the backward pass
            what comes before it there.
    """
    if not any(value.dtype.is_integer for value in state):
        return list(state)
    zero = zero_after(x)
    return [
        value + tf.cast(zero, value.dtype) if value.dtype.is_integer else value
        for value in state
    ]
