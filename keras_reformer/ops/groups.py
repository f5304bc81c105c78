"""A loop over groups of chunks, so that scores of a whole row never exist.

Arrays of chunks are `(rows, chunks, chunk_length, ...)`. Some belong to the
queries alone (`own`), some to keys and also hold the chunks around
(`around`: `before + chunks + after` of them). A step gets the same group of
both and returns arrays of both kinds; what neighbouring groups say of the
chunks they share is summed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops.shapes import (
    Length,
    at_least,
    ceil_div,
    map_tensors,
    pad_axis,
)

# Tokens in a step, over all of its rows: a step's scores and vectors then
# take a few MiB at the usual widths, near a core's share of the cache.
TOKENS_IN_STEP = 8192


class Place(NamedTuple):
    """Where a group lies: its first row and its first chunk."""

    row: Length
    chunk: Length


class Plan(NamedTuple):
    """How rows and chunks are grouped; a pure function of their numbers.

    Rows are put together only where a group holds them whole, so that the
    steps' results lie in order as they come.
    """

    rows: Length
    chunks: Length
    rows_in_step: Length
    chunks_in_step: Length
    groups_in_row: Length

    @property
    def num_steps(self) -> Length:
        return self.rows // self.rows_in_step * self.groups_in_row

    @property
    def is_one_step(self) -> bool:
        steps = self.num_steps
        return isinstance(steps, int) and steps == 1


def plan_groups(
    rows: Length, chunks: Length, chunk_length: int, halo: int
) -> Plan:
    """Groups of about `TOKENS_IN_STEP` tokens, as equal as can be.

    Args:
        rows: Number of rows.
        chunks: Number of chunks in a row.
        chunk_length: int. Positions in a chunk.
        halo: int. Most chunks that a window reaches to either side; no group
            is smaller.
    """
    most = max(TOKENS_IN_STEP // chunk_length, halo, 1)
    in_step = ceil_div(chunks, at_least(1, ceil_div(chunks, most)))
    # What a group shares with its neighbours must fit into one of them.
    in_step = at_least(max(halo, 1), in_step)
    groups = ceil_div(chunks, in_step)
    rows_in_step = 1
    if isinstance(groups, int) and groups == 1 and isinstance(rows, int):
        rows_in_step = _largest_divisor(
            rows, TOKENS_IN_STEP // (in_step * chunk_length)
        )
    return Plan(rows, chunks, rows_in_step, in_step, groups)


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(max(most, 1), 0, -1) if number % n == 0)


def over_groups(
    function: Callable[[Any, Any, Place], tuple[Any, Any]],
    own: Any,
    around: Any,
    plan: Plan,
    halo: tuple[int, int],
    signature: tuple[tuple, tuple],
) -> tuple[tuple, tuple]:
    """Maps a function over groups of chunks and puts its results together.

    Args:
        function: takes a group of `own`, the same group of `around` with its
            neighbours, and the group's `Place`; returns arrays of the two
            kinds, each a tuple (perhaps empty).
        own: structure of tensors `(rows, chunks, chunk_length, ...)`.
        around: the same with `before + chunks + after` chunks.
        plan: how to group.
        halo: Pair of ints. Neighbouring chunks before and after a group.
        signature: dtypes of the function's results.

    Returns:
        Results of the two kinds, with the chunks of all groups.
    """
    if plan.is_one_step:
        return function(own, around, Place(0, 0))
    spare = plan.groups_in_row * plan.chunks_in_step - plan.chunks
    own, around = map_tensors(lambda x: pad_axis(x, 1, 0, spare), (own, around))

    def step(index):
        row = index // plan.groups_in_row * plan.rows_in_step
        chunk = index % plan.groups_in_row * plan.chunks_in_step

        def cut(extra):
            count = plan.chunks_in_step + extra
            return lambda x: _cut(x, row, plan.rows_in_step, chunk, count)

        return function(
            map_tensors(cut(0), own),
            map_tensors(cut(sum(halo)), around),
            Place(row, chunk),
        )

    own_results, around_results = tf.map_fn(
        step,
        tf.range(plan.num_steps),
        fn_output_signature=signature,
        parallel_iterations=1,
    )
    return (
        tuple(_join(x, plan) for x in own_results),
        tuple(_join_overlaps(x, plan, *halo) for x in around_results),
    )


def _cut(x: tf.Tensor, row, rows, chunk, chunks) -> tf.Tensor:
    rest = x.shape[2:].as_list()
    begin = [row, chunk] + [0] * len(rest)
    cut = tf.slice(x, begin, [rows, chunks, *rest])
    static = [n if isinstance(n, int) else None for n in (rows, chunks)]
    return tf.ensure_shape(cut, [*static, *rest])


def _join(stacked: tf.Tensor, plan: Plan) -> tf.Tensor:
    """`(steps, rows, chunks, ...)` to `(all rows, all chunks, ...)`."""
    rest = stacked.shape[3:].as_list()
    chunks = plan.groups_in_row * plan.chunks_in_step
    joined = tf.reshape(stacked, [plan.rows, chunks, *rest])
    return joined[:, : plan.chunks]


def _join_overlaps(
    stacked: tf.Tensor, plan: Plan, before: int, after: int
) -> tf.Tensor:
    """The same for groups with neighbours, whose shares are summed."""
    inner = plan.chunks_in_step
    chunks = plan.groups_in_row * inner
    whole = before + chunks + after

    def place(part, width, first):
        part = pad_axis(part, 2, 0, inner - width)
        part = tf.reshape(part, [plan.rows, chunks, *part.shape[3:]])
        return pad_axis(part, 1, first, before + after)[:, :whole]

    total = place(stacked[:, :, before : before + inner], inner, before)
    if before:
        total += place(stacked[:, :, :before], before, 0)
    if after:
        total += place(stacked[:, :, before + inner :], after, before + inner)
    return total[:, : before + plan.chunks + after]
