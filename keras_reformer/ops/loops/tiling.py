"""A loop over groups of chunks, so that scores of a whole row never exist.

Arrays of chunks are `(rows, chunks, chunk_length, ...)`. A step gets a group
with the chunks around it, `before + chunks + after` of them, and returns what
belongs to its own chunks. What it needs of a neighbour it computes again: a
share of `1 / chunks in the group`, and nothing is left to be added up.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, scan
from keras_reformer.ops.loops.shapes import (
    Length,
    at_least,
    ceil_div,
    map_tensors,
    pad_axis,
    size,
)

# Tokens in a step, over all of its rows: a step's scores and vectors then
# take a few MiB at the usual widths, near a core's share of the cache.
TOKENS_IN_TILE = 4096


class Tile(NamedTuple):
    """Where a group lies.

    Attributes:
        row: Number of its first row.
        chunk: Number of its first chunk.
        count: Number of its chunks that exist; more may fill up the last
            group, whose results are cut off but for sums.
    """

    row: Length
    chunk: Length
    count: Length


class TilePlan(NamedTuple):
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


def plan_tiles(
    rows: Length, chunks: Length, chunk_length: int, halo: int
) -> TilePlan:
    """Groups of about `TOKENS_IN_TILE` tokens, as equal as can be.

    Args:
        rows: Number of rows.
        chunks: Number of chunks in a row.
        chunk_length: int. Positions in a chunk.
        halo: int. Most chunks that a window reaches to either side. There
            are not more groups than if each had so many, or most of a step
            would be neighbours.
    """
    most = max(TOKENS_IN_TILE // chunk_length, halo, 1)
    in_step = ceil_div(chunks, at_least(1, ceil_div(chunks, most)))
    in_step = at_least(1, in_step)
    groups = ceil_div(chunks, in_step)
    rows_in_step = 1
    if isinstance(groups, int) and groups == 1 and isinstance(rows, int):
        rows_in_step = _largest_divisor(
            rows, TOKENS_IN_TILE // (in_step * chunk_length)
        )
    return TilePlan(rows, chunks, rows_in_step, in_step, groups)


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(max(most, 1), 0, -1) if number % n == 0)


def map_tiles(
    function: Callable[[Any, Tile], tuple],
    around: Any,
    plan: TilePlan,
    halo: tuple[int, int],
    results: Sequence[ArraySpec],
    after: tf.Tensor,
    sums: Sequence[ArraySpec] = (),
) -> tuple[tf.Tensor, ...]:
    """Maps a function over groups of chunks and puts its results together.

    Args:
        function: takes a group of `around` with its neighbours and the
            group's `Tile`; returns a tuple of arrays of the group's own
            chunks, then of those that are to be summed, to which only the
            `count` first chunks may contribute.
        around: structure of tensors `(rows, before + chunks + after,
            chunk_length, ...)`.
        plan: how to group.
        halo: Pair of ints. Neighbouring chunks before and after a group.
        results: what the function's results are like, of a position.
        after: Tensor that the loop waits for.
        sums: what the arrays are like that are summed over groups.

    Returns:
        The results, with the chunks of all groups, then the sums.
    """
    if plan.is_one_step:
        return function(around, Tile(0, 0, plan.chunks))
    spare = plan.groups_in_row * plan.chunks_in_step - plan.chunks
    around = map_tensors(lambda x: pad_axis(x, 1, 0, spare), around)

    def step(index, *totals):
        row = index // plan.groups_in_row * plan.rows_in_step
        chunk = index % plan.groups_in_row * plan.chunks_in_step

        count = plan.chunks_in_step + sum(halo)
        group = map_tensors(
            lambda x: _cut(x, row, plan.rows_in_step, chunk, count), around
        )
        left = tf.minimum(plan.chunks_in_step, plan.chunks - chunk)
        found = function(group, Tile(row, chunk, left))
        parts = found[len(results) :]
        totals = (a + b for a, b in zip(totals, parts, strict=True))
        return *found[: len(results)], *totals

    first = tf.nest.flatten(around)[0]
    own = [plan.rows_in_step, plan.chunks_in_step, size(first, 2)]
    stacked, totals = scan(
        step,
        plan.num_steps,
        [ArraySpec([*own, *shape], dtype) for shape, dtype in results],
        after,
        [zeros_after(after, shape, dtype) for shape, dtype in sums],
    )
    return *(_join(x, plan) for x in stacked), *totals


def _cut(x: tf.Tensor, row, rows, chunk, chunks) -> tf.Tensor:
    rest = x.shape[2:].as_list()
    begin = [row, chunk] + [0] * len(rest)
    cut = tf.slice(x, begin, [rows, chunks, *rest])
    static = [n if isinstance(n, int) else None for n in (rows, chunks)]
    return tf.ensure_shape(cut, [*static, *rest])


def _join(stacked: tf.Tensor, plan: TilePlan) -> tf.Tensor:
    """`(steps, rows, chunks, ...)` to `(all rows, all chunks, ...)`."""
    rest = stacked.shape[3:].as_list()
    chunks = plan.groups_in_row * plan.chunks_in_step
    joined = tf.reshape(stacked, [plan.rows, chunks, *rest])
    return joined[:, : plan.chunks]
