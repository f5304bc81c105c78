"""A loop over tiles, so that scores of a whole row never exist.

Arrays of chunks are `(rows, chunks, chunk_length, ...)`. A tile is a group of
neighbouring chunks, in one row or in several. A step reads a tile with its
halo, `before + chunks + after` chunks, and returns results of the tile's own
chunks. What it needs of the halo it computes again, and no result is
scatter-added to those of other tiles.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops import tracing
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, add_each, scan
from keras_reformer.ops.loops.shapes import (
    Length,
    at_least,
    ceil_div,
    map_tensors,
    pad_axis,
    size,
)

# Tokens in a tile, over all of its rows, by where a trace will run. Scores and
# vectors of 4,096 take a few MiB at the usual widths, a share of a CPU's cache;
# a TPU holds twice as many on its chip. A GPU starts every operation of a
# tile anew, and wants few tiles.
TOKENS_IN_TILE = {"cpu": 4096, "gpu": 2**18, "tpu": 8192}
TPU_LANES = 128
# Most tokens in a group of rows, on a TPU: one row, or a tile of short ones.
# What they are attended to, what is summed over hash rounds and what is added
# then fit on the chip, 8 MiB each.
TOKENS_IN_GROUP = 2**14
_chosen: list[int] = []


def set_tokens_in_tile(tokens: int | None) -> None:
    """Sets how many tokens attention takes at a time.

    Local and LSH attention loop over tiles: groups of so many tokens, over
    all heads and examples. A loop's memory follows their number, results and
    gradients do not. Small tiles stay in a processor's cache, large ones keep
    a GPU busy.

    What is traced from now on follows, so set it before a model is called or
    compiled for the first time.

    Args:
        tokens: int. Tokens in a tile, rounded to whole chunks. `None` means
            the default of the platform: 4,096 on a CPU, 8,192 on a TPU,
            262,144 on a GPU.

    Raises:
        ValueError: if `tokens` is neither a positive int nor None.

    Example:

    >>> keras_reformer.set_tokens_in_tile(65536)
    >>> layer = keras_reformer.LSHSelfAttention(num_heads=2, key_dim=16)
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])
    >>> keras_reformer.set_tokens_in_tile(None)
    """
    is_number = isinstance(tokens, int) and not isinstance(tokens, bool)
    if tokens is not None and not (is_number and tokens > 0):
        raise ValueError(
            "`tokens` must be a positive int or None. Received: "
            f"tokens={tokens!r}"
        )
    _chosen[:] = [] if tokens is None else [tokens]


def tokens_in_tile() -> int:
    """How many tokens attention takes at a time, where it is traced now.

    See `set_tokens_in_tile`.
    """
    return _chosen[0] if _chosen else TOKENS_IN_TILE[tracing.platform()]


def fills_no_row(width: int) -> bool:
    """Whether a TPU, for which this is traced, would fill up vectors."""
    return tracing.for_tpu() and 1 < width < TPU_LANES


class Tile(NamedTuple):
    """Where a tile lies.

    Attributes:
        row: Number of its first row.
        chunk: Number of its first chunk.
        count: Number of its chunks that exist; padding may fill up the last
            tile, whose results are cut off but for sums.
    """

    row: Length
    chunk: Length
    count: Length


class TilePlan(NamedTuple):
    """How rows and chunks are tiled; a pure function of their numbers.

    A tile holds several rows only where it holds them whole, so that the
    steps' results are in order.

    Attributes:
        rows: Number of rows.
        chunks: Number of chunks in a row.
        rows_in_tile: Number of rows in a tile.
        chunks_in_tile: Number of chunks of a row in a tile.
        tiles_in_row: Number of tiles that a row is cut into.
    """

    rows: Length
    chunks: Length
    rows_in_tile: Length
    chunks_in_tile: Length
    tiles_in_row: Length

    @property
    def num_tiles(self) -> Length:
        return self.rows // self.rows_in_tile * self.tiles_in_row

    @property
    def tile(self) -> list[Length]:
        """Numbers of rows and chunks of a tile."""
        return [self.rows_in_tile, self.chunks_in_tile]

    @property
    def is_one_tile(self) -> bool:
        tiles = self.num_tiles
        return isinstance(tiles, int) and tiles == 1


def plan_tiles(
    rows: Length, chunks: Length, chunk_length: int, halo: int
) -> TilePlan:
    """Tiles of about `tokens_in_tile()` tokens, as equal as can be.

    Args:
        rows: Number of rows.
        chunks: Number of chunks in a row.
        chunk_length: int. Tokens in a chunk.
        halo: int. Greatest number of chunks that a window reaches to either
            side. A tile has at least so many, or most of a step would be
            halo.
    """
    tokens = tokens_in_tile()
    most = max(tokens // chunk_length, halo, 1)
    in_tile = ceil_div(chunks, at_least(1, ceil_div(chunks, most)))
    in_tile = at_least(1, in_tile)
    tiles_in_row = ceil_div(chunks, in_tile)
    rows_in_tile = 1
    if (
        isinstance(tiles_in_row, int)
        and tiles_in_row == 1
        and isinstance(rows, int)
    ):
        rows_in_tile = _largest_divisor(
            rows, tokens // (in_tile * chunk_length)
        )
    return TilePlan(rows, chunks, rows_in_tile, in_tile, tiles_in_row)


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(max(most, 1), 0, -1) if number % n == 0)


def map_tiles(
    function: Callable[[Any, Tile], tuple],
    chunks: Any,
    plan: TilePlan,
    *,
    halo: tuple[int, int],
    results: Sequence[ArraySpec],
    after: tf.Tensor,
    sums: Sequence[ArraySpec] = (),
) -> tuple[tf.Tensor, ...]:
    """Maps a function over tiles and joins its results.

    Args:
        function: takes a tile of `chunks` with its halo, and its `Tile`;
            returns a tuple of arrays of the tile's own chunks, then of those
            that are summed, to which only the `count` first chunks may
            contribute.
        chunks: structure of tensors `(rows, before + chunks + after,
            chunk_length, ...)`.
        plan: of `plan_tiles`.
        halo: Pair of ints. Neighbouring chunks before and after a tile.
        results: shape, of a token, and dtype of each result.
        after: the loop takes its memory once this tensor is computed.
        sums: shape and dtype of each array that is summed over tiles.

    Returns:
        The results, with the chunks of all tiles, then the sums.
    """
    if plan.is_one_tile:
        return function(chunks, Tile(0, 0, plan.chunks))
    padding = plan.tiles_in_row * plan.chunks_in_tile - plan.chunks
    chunks = map_tensors(lambda x: pad_axis(x, 1, 0, padding), chunks)

    def step(index, *totals):
        row = index // plan.tiles_in_row * plan.rows_in_tile
        chunk = index % plan.tiles_in_row * plan.chunks_in_tile

        size_with_halo = plan.chunks_in_tile + sum(halo)
        tile_chunks = map_tensors(
            lambda x: _slice(
                x, (row, chunk), (plan.rows_in_tile, size_with_halo)
            ),
            chunks,
        )
        count = tf.minimum(plan.chunks_in_tile, plan.chunks - chunk)
        arrays = function(tile_chunks, Tile(row, chunk, count))
        by_chunk, parts = arrays[: len(results)], arrays[len(results) :]
        by_chunk = (
            tf.reshape(x, [*plan.tile, *shape])
            for x, (shape, _) in zip(by_chunk, chunk_specs, strict=True)
        )
        return *by_chunk, *add_each(totals, parts)

    chunk_length = size(tf.nest.flatten(chunks)[0], 2)
    chunk_specs = [_in_chunk(spec, chunk_length) for spec in results]
    stacked, totals = scan(
        step,
        plan.num_tiles,
        [ArraySpec([*plan.tile, *rest], dtype) for rest, dtype in chunk_specs],
        after,
        [zeros_after(after, *spec) for spec in sums],
    )
    joined = (
        _join(x, plan, [chunk_length, *rest])
        for x, (rest, _) in zip(stacked, results, strict=True)
    )
    return *joined, *totals


def map_rows(
    function: Callable[..., tuple],
    arrays: tuple,
    *,
    results: Sequence[ArraySpec],
    sums: Sequence[ArraySpec] = (),
) -> tuple[tf.Tensor, ...]:
    """Maps a function over groups of rows on a TPU, else over all at once.

    There too where the chip does not hold what a row is.

    Args:
        function: takes the number of the first row, None for all rows at
            once, and these rows of the arrays; returns a tuple of arrays by
            rows, then of those that are summed.
        arrays: structures of tensors `(rows, length, ...)`; the first one's
            length counts.
        results: shape, of a row, and dtype of each result.
        sums: shape and dtype of each array that is summed over groups.

    Returns:
        The results of all rows, then the sums.
    """
    first = tf.nest.flatten(arrays)[0]
    rows, group = size(first, 0), _rows_in_group(first)
    if group is None:
        return function(None, *arrays)

    def step(index, *totals):
        row = index * group
        parts = map_tensors(
            lambda x: _slice(x, (row, 0), (group, size(x, 1))), arrays
        )
        made = function(row, *parts)
        by_row, added = made[: len(results)], made[len(results) :]
        return *by_row, *add_each(totals, added)

    stacked, totals = scan(
        step,
        rows // group,
        [ArraySpec([group, *shape], dtype) for shape, dtype in results],
        first,
        [zeros_after(first, *spec) for spec in sums],
    )
    joined = (tf.reshape(x, [rows, *x.shape[2:]]) for x in stacked)
    return *joined, *totals


def fits_in_group(x: tf.Tensor) -> bool:
    """Whether rows `(rows, length, ...)` are no more than a group's."""
    rows, length = x.shape[:2]
    return bool(rows and length) and rows * length <= TOKENS_IN_GROUP


def _rows_in_group(x: tf.Tensor) -> int | None:
    """How many rows `(rows, length, ...)` a group has; None for all."""
    rows, length = x.shape[:2]
    if not (tracing.for_tpu() and rows and length):
        return None
    if length > TOKENS_IN_GROUP:
        # Of a row that the chip does not hold a slice is one more copy.
        return None
    group = _largest_divisor(rows, tokens_in_tile() // length)
    return group if group < rows else None


def _in_chunk(spec: ArraySpec, chunk_length: Length) -> ArraySpec:
    """A chunk's results: of narrow vectors one row, on a TPU."""
    rest, dtype = spec
    if len(rest) == 1 and fills_no_row(rest[0]):
        return ArraySpec([chunk_length * rest[0]], dtype)
    return ArraySpec([chunk_length, *rest], dtype)


def _slice(x: tf.Tensor, begin: tuple, sizes: tuple) -> tf.Tensor:
    """A slice of the first two axes, whose sizes stay static where known."""
    rest = x.shape[2:].as_list()
    part = tf.slice(x, [*begin] + [0] * len(rest), [*sizes, *rest])
    static = [n if isinstance(n, int) else None for n in sizes]
    return tf.ensure_shape(part, [*static, *rest])


def _join(stacked: tf.Tensor, plan: TilePlan, chunk: list) -> tf.Tensor:
    """`(tiles, rows, chunks, ...)` to `(all rows, all chunks, *chunk)`."""
    chunks = plan.tiles_in_row * plan.chunks_in_tile
    joined = tf.reshape(stacked, [plan.rows, chunks, *chunk])
    return joined[:, : plan.chunks]
