"""Local attention over chunks of positions, and exact attention.

Both are one softmax a query with the gradient written by hand in
`ops/attention/kernel.py`: memory is linear in the length.
"""

import functools

import tensorflow as tf

from keras_reformer.ops import tracing
from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import (
    PositionBias,
    sums_of,
    values_of,
    with_values,
)
from keras_reformer.ops.attention.sorting import flatten_rows
from keras_reformer.ops.attention.window import (
    Window,
    WindowAttention,
    crop_chunks,
    windows,
)
from keras_reformer.ops.custom_vjp import first_order_gradient
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.shapes import (
    Length,
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)
from keras_reformer.ops.loops.tiling import Tile, map_tiles, plan_tiles


def merge_heads_into_batch(x: tf.Tensor) -> tf.Tensor:
    """`(b, h, t, d)` to `(g, t, d)`."""
    return tf.reshape(x, [size(x, 0) * size(x, 1), size(x, 2), size(x, 3)])


def token_positions(
    mask: tf.Tensor | None, rows: Length, num_heads: int, length: Length
) -> tf.Tensor:
    """Positions `(g, t)` of the tokens, -1 where masked."""
    positions = tf.range(length)
    if mask is None:
        return tf.broadcast_to(positions, [rows, length])
    return tf.repeat(tf.where(mask, positions, -1), num_heads, axis=0)


def split_into_chunks(
    x: tf.Tensor, chunk_length: int, padding: int = 0
) -> tf.Tensor:
    """`(g, t, ...)` to `(g, n, c, ...)`, the last chunk filled up."""
    length, rest = size(x, 1), x.shape[2:].as_list()
    chunks = ceil_div(length, chunk_length)
    x = pad_axis(x, 1, 0, chunks * chunk_length - length, padding)
    return tf.reshape(x, [size(x, 0), chunks, chunk_length, *rest])


def join_chunks(x: tf.Tensor, length: Length) -> tf.Tensor:
    """`(g, n, c, ...)` to `(g, length, ...)`, the padding cut off."""
    rest = x.shape[3:].as_list()
    joined = tf.reshape(x, [size(x, 0), size(x, 1) * size(x, 2), *rest])
    return joined[:, :length]


def take_from_circle(
    chunks: tf.Tensor, first: Length, count: Length, halo: tuple[int, int]
) -> tf.Tensor:
    """A run of chunks and those around it, past the last chunk the first."""
    index = first - halo[0] + tf.range(count + sum(halo))
    return tf.gather(chunks, index % size(chunks, 1), axis=1)


def local_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    window: Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    dropping: kernel.AttentionDropout | None = None,
    bias: PositionBias | None = None,
) -> tf.Tensor:
    """Attention of each position to its own and the neighbouring chunks.

    Args:
        query: Tensor of shape `(batch, num_heads, length, key_dim)`.
        key: Tensor of the same shape, already scaled.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        window: which chunks, and whether causal.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
        wrap: bool. The first chunk's neighbour is the last.
        dropping: dropout of the attention weights.
        bias: what to add to the scores.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)`, zero at
        masked positions and where nothing is visible.
    """
    batch, num_heads, length = size(query, 0), query.shape[1], size(query, 2)
    rows = batch * num_heads
    positions = token_positions(mask, rows, num_heads, length)
    loop = functools.partial(
        _ChunkLoop,
        positions,
        window,
        wrap,
        dropping,
        softmax_dtype(query.dtype),
    )
    vectors = map(merge_heads_into_batch, (query, key, value))
    output = _attention(*vectors, bias, loop)
    output = tf.where(positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _attention(query, key, value, bias, make_loop) -> tf.Tensor:
    @first_order_gradient
    def attention(query, key, value, *bias_values):
        loop = make_loop(with_values(bias, bias_values))
        output, log_sum_exp = loop.attend(query, key, value)

        def gradient(d_output):
            upstream = kernel.output_gradient(d_output, output, log_sum_exp)
            gradients = loop.gradient(query, key, value, upstream)
            inputs = (query, key, value, *bias_values)
            return kernel.cast_like(gradients, inputs)

        return output, gradient

    return attention(query, key, value, *values_of(bias))


class _ChunkLoop:
    """One softmax a query over a window of chunks, in groups of chunks."""

    def __init__(self, positions, window, wrap, dropping, dtype, bias):
        self.positions = positions
        self.window = window
        self.wrap = wrap
        self.dtype = dtype
        self.length = size(positions, 1)
        self.chunks = ceil_div(self.length, window.chunk_length)
        self.bias = bias
        self.attention = WindowAttention(
            window, self.chunks * window.chunk_length, dropping, None, bias
        )

    def attend(self, query, key, value):
        window = self.window
        query, key, value = self._chunked(query, key, value)

        def forward(tokens, place):
            here = self._locate(tokens.position, place, window.before)
            wide = windows(here, window)
            own = crop_chunks(here, window.before, size(wide[0], 1))
            (queries,) = self._fetch((query,), *own)
            keys, values = self._fetch((key, value), *wide)
            return self.attention.attend(
                queries,
                keys,
                values,
                tokens,
                rows_at(place, tokens.position),
                place.chunk,
            )

        halo = (window.before, window.after)
        return self._over_groups(forward, halo, [value.shape[-1:], []], value)

    def gradient(self, query, key, value, upstream):
        window = self.window
        query, key, value, *upstream = self._chunked(
            query, key, value, *upstream
        )

        def backward(tokens, place):
            here = self._locate(tokens.position, place, window.reach)
            wide = windows(here, window)
            own = crop_chunks(here, window.after, size(wide[0], 1))
            queries, *known = self._fetch((query, *upstream), *wide)
            keys, values = self._fetch((key, value), *own)
            return self.attention.gradient(
                queries,
                keys,
                values,
                kernel.OutputGradient(*known).where(wide[1] >= 0),
                tokens,
                rows_at(place, tokens.position),
                place.chunk,
                place.count,
            )

        halo = (window.reach, window.reach)
        shapes = [x.shape[-1:] for x in (query, key, value)]
        return self._over_groups(
            backward, halo, shapes, upstream[0], sums_of(self.bias)
        )

    def _over_groups(self, function, halo, shapes, after, sums=()):
        plan = plan_tiles(
            size(self.positions, 0),
            self.chunks,
            self.window.chunk_length,
            max(halo),
        )
        tokens = kernel.TokenInfo(self._around(self.positions, halo))
        results = [ArraySpec(shape, self.dtype) for shape in shapes]
        found = map_tiles(function, tokens, plan, halo, results, after, sums)
        chunked, totals = found[: len(results)], found[len(results) :]
        return *(join_chunks(x, self.length) for x in chunked), *totals

    def _chunked(self, *tensors):
        length = self.window.chunk_length
        return [split_into_chunks(x, length) for x in tensors]

    def _around(self, positions, halo):
        """Chunks with those around a row: its own other end, or none."""
        chunks = split_into_chunks(positions, self.window.chunk_length, -1)
        if self.wrap:
            return take_from_circle(chunks, 0, self.chunks, halo)
        return pad_axis(chunks, 1, *halo, -1)

    def _locate(self, position, place, before):
        """Where a group's chunks lie, `(r, n, 1)`, and their positions.

        Where a run leaves its row without `wrap` it holds any chunk; the
        tokens' positions hide it.
        """
        chunk = place.chunk - before + tf.range(size(position, 1))
        last = self.chunks - 1
        chunk = (
            chunk % self.chunks
            if self.wrap
            else tf.clip_by_value(chunk, 0, last)
        )
        first = rows_at(place, position)[:, None] * self.chunks
        return (first + chunk)[..., None], position

    def _fetch(self, chunked, chunk, position):
        """Takes `(r, n, k)` chunks as `(r, n, k * c, ...)`.

        Straight from where they lie: a padded or shifted copy is never made.
        """
        shape = [size(position, axis) for axis in range(3)]
        found = []
        for x in chunked:
            taken = tf.gather(flatten_rows(x), chunk)
            taken = tf.reshape(taken, [*shape, *x.shape[3:].as_list()])
            found.append(zero_absent(tf.cast(taken, self.dtype), position))
        return found


def zero_absent(taken: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Zeroes gathered vectors where the position says that there is no token.

    Masks hide such vectors anyway. The factor makes XLA gather by vector
    instructions on a CPU: a loop that only copies it unrolls into moves of
    single numbers, four times as slow. A TPU moves whole rows as they are,
    and would pay for the factor with a pass over them.

    Args:
        taken: Tensor of shape `(r, n, k, dim)`; numbers, `(r, n, k)`, stay
            what they are.
        position: int32 tensor of shape `(r, n, k)`, -1 for no token.
    """
    if taken.shape.rank == position.shape.rank or tracing.for_tpu():
        return taken
    return taken * tf.cast(position >= 0, taken.dtype)[..., None]


def rows_at(place: Tile, x: tf.Tensor) -> tf.Tensor:
    """Numbers of the rows of a group."""
    return place.row + tf.range(size(x, 0))
