"""A loop that carries state and stacks its steps' results."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.shapes import Length


class ArraySpec(NamedTuple):
    """Shape and dtype of an array."""

    shape: Sequence[Length]
    dtype: tf.DType


def scan(
    step: Callable[..., tuple],
    count: Length,
    results: Sequence[ArraySpec],
    after: tf.Tensor,
    totals: Sequence[tf.Tensor] = (),
) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
    """Runs `step(index, *totals)` for each index, one at a time.

    As `jax.lax.scan`: totals are carried from step to step. The stacks'
    memory is taken after the loop's inputs are computed (`zeros_after`).

    Args:
        step: returns a tuple of one array for each of `results`, then the
            totals' new values.
        count: Number of steps.
        results: shape and dtype of each array.
        after: the loop takes its memory once this tensor is computed.
        totals: tensors that the first step gets.

    Returns:
        stacked: the results, `(count, ...)` each.
        totals: their last values.
    """
    stacks = [
        tf.TensorArray(dtype, count, element_shape=_static(shape)).unstack(
            zeros_after(after, [count, *shape], dtype)
        )
        for shape, dtype in results
    ]

    def body(index, stacks, totals):
        returned = step(index, *totals)
        arrays, totals = returned[: len(stacks)], returned[len(stacks) :]
        stacks = [
            stack.write(index, x)
            for stack, x in zip(stacks, arrays, strict=True)
        ]
        return index + 1, stacks, list(totals)

    _, stacks, totals = tf.while_loop(
        lambda index, *state: index < count,
        body,
        (tf.constant(0), stacks, list(totals)),
        parallel_iterations=1,
        maximum_iterations=count,
    )
    return tuple(stack.stack() for stack in stacks), tuple(totals)


def add_each(
    totals: Sequence[tf.Tensor], parts: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Totals with what a step adds to each."""
    return [a + b for a, b in zip(totals, parts, strict=True)]


def _static(shape: Sequence[Length]) -> tf.TensorShape:
    return tf.TensorShape([n if isinstance(n, int) else None for n in shape])
