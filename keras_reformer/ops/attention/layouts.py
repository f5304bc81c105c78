"""Layouts: where the tokens of windowed attention lie.

The engine (`windowed.py`) attends from chunks of tokens to the neighbouring
chunks. Which tokens stand in a chunk is the layout's affair: neighbouring
positions (`PositionLayout`), or neighbouring ranks in the sorted order of a
hash round (`HashLayout`). A layout is made anew for each pass, so that
nothing it computes lives between the passes.
"""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from keras_reformer.ops import tracing
from keras_reformer.ops.attention.sorting import (
    flatten_rows,
    invert_permutation,
    take,
)
from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.loops.shapes import (
    Length,
    ceil_div,
    join_chunks,
    map_tensors,
    pad_axis,
    size,
    split_into_chunks,
)
from keras_reformer.ops.loops.tiling import Tile, fills_no_row


class Chunks(NamedTuple):
    """The tokens of chunks, with those of the halo around them.

    Attributes:
        token: int32 `(g, n, c)`. The token's position; -1 where there is
            none, and in a `PositionLayout` where it is masked.
        info: what masks need of tokens besides, of the same shape; None
            where `token` says it all.
    """

    token: tf.Tensor
    info: Any = None


class Slots(NamedTuple):
    """Where a tile's chunks, or windows of them, are gathered from.

    Attributes:
        token: int32 `(r, n, k)`. As in `Chunks`.
        chunk: int32 `(r, n, k / c)`. Number of the chunk among those of all
            rows; None where tokens of a chunk do not lie side by side.
    """

    token: tf.Tensor
    chunk: tf.Tensor | None = None


class Layout(Protocol):
    """What the engine asks of a layout.

    Attributes:
        num_rows: Number of rows: batch times heads.
        num_chunks: Number of chunks in a row.
        num_ranks: Modulus of the ranks that dropout counts: slots of all
            chunks, of all rounds if there are several.
        first_chunk: Number of the first chunk, as dropout counts them.
    """

    num_rows: Length
    num_chunks: Length
    num_ranks: Length
    first_chunk: Length

    def row_numbers(self, tile: Tile, x: tf.Tensor) -> tf.Tensor:
        """`tile_rows` as masks count them: among all of the batch."""
        ...

    def prepare(self, vectors: Any) -> Any:
        """Arranges a structure of `(g, t, ...)` once a pass, for `gather`."""
        ...

    def chunks(self, halo: tuple[int, int]) -> Chunks:
        """All chunks of a row, with the halo before and after them."""
        ...

    def dependency(self, chunks: Chunks, vectors: tf.Tensor) -> tf.Tensor:
        """What the loop over tiles waits for before it takes memory."""
        ...

    def token_info(self, chunks: Chunks) -> TokenInfo:
        """What masks need to know of a tile's tokens."""
        ...

    def slots(self, chunks: Chunks, tile: Tile, halo_before: int) -> Slots:
        """Where a tile's chunks and their halo lie."""
        ...

    def gather(self, vectors: tuple, slots: Slots, tile: Tile) -> list:
        """Takes vectors as `(r, n, k, ...)`.

        Where there is no token they are zero or any token's, but finite.
        """
        ...

    def restore(self, results: tuple) -> tuple:
        """Results `(g, n, c, ...)` by position, `(g, t, ...)`."""
        ...


class PositionLayout:
    """Chunks of neighbouring positions.

    Args:
        positions: int32 `(g, t)`, -1 where masked.
        window: its chunks' length.
        dtype: of gathered vectors.
        wrap: bool. The first chunk's neighbour is the last one.
        chunk: int32 `(g, t)`. `TokenInfo.chunk` of the tokens, or None.
    """

    first_chunk = 0

    def __init__(
        self,
        positions: tf.Tensor,
        window: Window,
        dtype: tf.DType,
        wrap: bool = False,
        chunk: tf.Tensor | None = None,
    ):
        self.positions = positions
        self.chunk = chunk
        self.chunk_length = window.chunk_length
        self.dtype = dtype
        self.wrap = wrap
        self.num_rows, self.length = size(positions, 0), size(positions, 1)
        self.num_chunks = ceil_div(self.length, self.chunk_length)
        self.num_ranks = self.num_chunks * self.chunk_length

    def row_numbers(self, tile: Tile, x: tf.Tensor) -> tf.Tensor:
        return tile_rows(tile, x)

    def prepare(self, vectors: Any) -> Any:
        """A TPU fills up rows of its memory to 128 lanes: there a chunk of
        narrow vectors is one long row, of `chunk_length * dim` lanes."""

        def arrange(x):
            x = split_into_chunks(x, self.chunk_length)
            if x.shape.rank > 3 and fills_no_row(x.shape[-1]):
                lanes = self.chunk_length * x.shape[-1]
                return tf.reshape(x, [size(x, 0), size(x, 1), lanes])
            return x

        return map_tensors(arrange, vectors)

    def chunks(self, halo: tuple[int, int]) -> Chunks:
        def arrange(x):
            chunks = split_into_chunks(x, self.chunk_length, -1)
            if self.wrap:
                return take_from_ring(chunks, 0, self.num_chunks, halo)
            return pad_axis(chunks, 1, *halo, -1)

        return map_tensors(arrange, Chunks(self.positions, self.chunk))

    def dependency(self, chunks: Chunks, vectors: tf.Tensor) -> tf.Tensor:
        return vectors

    def token_info(self, chunks: Chunks) -> TokenInfo:
        return TokenInfo(chunks.token, chunk=chunks.info)

    def slots(self, chunks: Chunks, tile: Tile, halo_before: int) -> Slots:
        """Without `wrap`, chunks outside the row are clamped to its ends; the
        tokens there are -1, so masks hide them."""
        chunk = tile.chunk - halo_before + tf.range(size(chunks.token, 1))
        if self.wrap:
            chunk %= self.num_chunks
        else:
            chunk = tf.clip_by_value(chunk, 0, self.num_chunks - 1)
        first = tile_rows(tile, chunks.token)[:, None] * self.num_chunks
        return Slots(chunks.token, (first + chunk)[..., None])

    def gather(self, vectors: tuple, slots: Slots, tile: Tile) -> list:
        """Whole chunks, straight from where they lie: a padded or shifted
        copy is never made."""
        shape = [size(slots.token, axis) for axis in range(3)]
        gathered = []
        for x in vectors:
            taken = tf.gather(flatten_rows(x), slots.chunk)
            rest = x.shape[3:].as_list()
            # One long row of vectors, not one number for each token.
            if x.shape.rank == 3 and x.shape[2] != self.chunk_length:
                rest = [x.shape[2] // self.chunk_length]
            taken = tf.reshape(taken, [*shape, *rest])
            taken = tf.cast(taken, self.dtype)
            gathered.append(zero_absent(taken, slots.token))
        return gathered

    def restore(self, results: tuple) -> tuple:
        return tuple(join_chunks(x, self.length) for x in results)


class HashRounds(NamedTuple):
    """What all hash rounds decided.

    Attributes:
        orders: int32 `(g, num_hashes, t)`. At each rank, the position there.
        buckets: int32 `(g, num_hashes, t)`. At each position, its bucket.
        positions: int32 `(g, t)`, -1 where masked.
        segment: int32 `(g, t)`, `TokenInfo.segment`, or None.
    """

    orders: tf.Tensor
    buckets: tf.Tensor
    positions: tf.Tensor
    segment: tf.Tensor | None = None

    @property
    def num_hashes(self) -> int:
        return self.orders.shape[1]


class HashLayout:
    """Chunks of neighbouring ranks in the sorted order of one hash round.

    Args:
        rounds: all rounds.
        index: Number of the round.
        window: its chunks' length, and whether it is one of buckets.
        dtype: of gathered vectors.
        wrap: bool. Rounds are one ring of chunks.
        needs_positions: bool. Whether masks or biases read positions.
        coordinates: int32 `(g, t, num_hashes)`. Every position's
            `duplicates.window_coordinate` in all rounds, or None.
        first_row: Number of the rounds' first row among those of the batch,
            as masks count them; None where they are all rows.
    """

    def __init__(
        self,
        rounds: HashRounds,
        index: tf.Tensor,
        window: Window,
        dtype: tf.DType,
        *,
        wrap: bool,
        needs_positions: bool,
        coordinates: tf.Tensor | None,
        first_row: tf.Tensor | None = None,
    ):
        self.rounds = rounds
        self.first_row = first_row
        self.index = index
        self.window = window
        self.dtype = dtype
        self.wrap = wrap
        self.needs_positions = needs_positions
        self.coordinates = coordinates
        self.num_rows, _, self.length = (
            size(rounds.orders, axis) for axis in range(3)
        )
        self.num_chunks = ceil_div(self.length, window.chunk_length)
        self.ring = self.num_chunks * rounds.num_hashes
        self.num_ranks = self.ring * window.chunk_length
        self.first_chunk = index * self.num_chunks

    def row_numbers(self, tile: Tile, x: tf.Tensor) -> tf.Tensor:
        rows = tile_rows(tile, x)
        return rows if self.first_row is None else rows + self.first_row

    def prepare(self, vectors: Any) -> Any:
        return vectors

    def chunks(self, halo: tuple[int, int]) -> Chunks:
        order = self._order(halo)
        return Chunks(order, self._token_info(order))

    def _order(self, halo: tuple[int, int]) -> tf.Tensor:
        """The round's order in chunks, with the halo; -1 is no token."""
        orders, length = self.rounds.orders, self.window.chunk_length
        if not self.wrap:
            chunks = split_into_chunks(orders[:, self.index], length, -1)
            return pad_axis(chunks, 1, *halo, -1)
        chunks = split_into_chunks(flatten_rows(orders), length, -1)
        ring = tf.reshape(chunks, [self.num_rows, self.ring, length])
        return take_from_ring(ring, self.first_chunk, self.num_chunks, halo)

    def _token_info(self, order: tf.Tensor) -> TokenInfo:
        rounds = self.rounds
        position, bucket, coordinates, segment = None, None, None, None
        if self.window.same_bucket:
            bucket = _take_or_pad(rounds.buckets[:, self.index], order, -1)
        if self.needs_positions or not self.window.same_bucket:
            position = _take_or_pad(rounds.positions, order, -1)
        if self.coordinates is not None:
            taken = take(self.coordinates, tf.maximum(order, 0))
            coordinates = tuple(tf.unstack(taken, rounds.num_hashes, axis=-1))
        if rounds.segment is not None:
            segment = _take_or_pad(rounds.segment, order, -1)
        return TokenInfo(position, bucket, coordinates, segment)

    def dependency(self, chunks: Chunks, vectors: tf.Tensor) -> tf.Tensor:
        return chunks.token

    def token_info(self, chunks: Chunks) -> TokenInfo:
        return chunks.info

    def slots(self, chunks: Chunks, tile: Tile, halo_before: int) -> Slots:
        return Slots(chunks.token)

    def gather(self, vectors: tuple, slots: Slots, tile: Tile) -> list:
        """Token by token, straight from where they lie: a copy of the whole
        sequence in the round's order is never made."""
        first = tile_rows(tile, slots.token) * self.length
        index = tf.maximum(slots.token, 0) + first[:, None, None]
        gathered = []
        for x in vectors:
            taken = tf.cast(tf.gather(flatten_rows(x), index), self.dtype)
            gathered.append(zero_absent(taken, slots.token))
        return gathered

    def restore(self, results: tuple) -> tuple:
        ranks = invert_permutation(self.rounds.orders[:, self.index])
        return tuple(
            take(join_chunks(x, size(x, 1) * size(x, 2)), ranks)
            for x in results
        )


def tile_rows(tile: Tile, x: tf.Tensor) -> tf.Tensor:
    """Numbers of a tile's rows, int32 `(r,)`, for `x` of shape `(r, ...)`."""
    return tile.row + tf.range(size(x, 0))


def take_from_ring(
    chunks: tf.Tensor, first: Length, count: Length, halo: tuple[int, int]
) -> tf.Tensor:
    """`count` chunks and their halo; after the last one comes the first."""
    index = first - halo[0] + tf.range(count + sum(halo))
    return tf.gather(chunks, index % size(chunks, 1), axis=1)


def zero_absent(taken: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
    """Zeroes gathered vectors where there is no token.

    Masks hide such vectors anyway. The factor makes XLA gather by vector
    instructions on a CPU: a loop that only copies it unrolls into moves of
    single numbers, four times as slow. A TPU moves whole rows as they are,
    and would pay for the factor with a pass over them.

    Args:
        taken: Tensor of shape `(r, n, k, dim)`; numbers, `(r, n, k)`, stay
            what they are.
        token: int32 tensor of shape `(r, n, k)`, -1 for no token.
    """
    if taken.shape.rank == token.shape.rank or tracing.for_tpu():
        return taken
    return taken * tf.cast(token >= 0, taken.dtype)[..., None]


def _take_or_pad(x: tf.Tensor, order: tf.Tensor, padding: int) -> tf.Tensor:
    """Takes `(g, t)` at `(g, n, c)` positions; `padding` at -1."""
    return tf.where(order >= 0, take(x, tf.maximum(order, 0)), padding)
