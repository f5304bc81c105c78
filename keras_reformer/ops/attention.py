"""Local attention over chunks of positions, and exact attention.

Both are one softmax a query with the gradient written by hand in
`ops/blocks.py`: memory is linear in the length.
"""

import tensorflow as tf

from keras_reformer.ops import blocks
from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.groups import over_groups, plan_groups
from keras_reformer.ops.shapes import (
    Length,
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)


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


def split_into_chunks(x: tf.Tensor, chunk_length: int) -> tf.Tensor:
    """`(g, n * c, ...)` to `(g, n, c, ...)`."""
    rest = x.shape[2:].as_list()
    chunks = size(x, 1) // chunk_length
    return tf.reshape(x, [size(x, 0), chunks, chunk_length, *rest])


def join_chunks(x: tf.Tensor, length: Length) -> tf.Tensor:
    """`(g, n, c, ...)` to `(g, length, ...)`, the padding cut off."""
    rest = x.shape[3:].as_list()
    joined = tf.reshape(x, [size(x, 0), size(x, 1) * size(x, 2), *rest])
    return joined[:, :length]


def local_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    window: blocks.Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    dropping: blocks.Dropping | None = None,
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

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)`, zero at
        masked positions and where nothing is visible.
    """
    batch, num_heads, length = size(query, 0), query.shape[1], size(query, 2)
    rows = batch * num_heads
    positions = token_positions(mask, rows, num_heads, length)
    chunk = window.chunk_length
    spare = ceil_div(length, chunk) * chunk - length

    def chunks(x, padding=0):
        return split_into_chunks(pad_axis(x, 1, 0, spare, padding), chunk)

    def around(x, padding=0):
        return _with_neighbours(chunks(x, padding), window, wrap, padding)

    query, key, value = map(merge_heads_into_batch, (query, key, value))
    loop = _ChunkLoop(
        blocks.Tokens(chunks(positions, -1)),
        blocks.Tokens(around(positions, -1)),
        window,
        dropping,
        softmax_dtype(query.dtype),
    )
    output = _attention(chunks(query), around(key), around(value), loop)
    output = join_chunks(output, length)
    output = tf.where(positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _with_neighbours(
    chunks: tf.Tensor, window: blocks.Window, wrap: bool, padding: int
) -> tf.Tensor:
    """Puts the chunks around a row: its own other end, or padding."""
    if not wrap:
        return pad_axis(chunks, 1, window.before, window.after, padding)
    count = size(chunks, 1)
    index = tf.range(count + window.before + window.after) - window.before
    return tf.gather(chunks, index % count, axis=1)


def _attention(query, key, value, loop: "_ChunkLoop") -> tf.Tensor:
    @first_order_gradient
    def attention(query, key, value):
        output, log_sum_exp = loop.attend(query, key, value)

        def gradient(d_output):
            upstream = blocks.upstream_of(d_output, output, log_sum_exp)
            gradients = loop.gradient(query, key, value, upstream)
            return blocks.cast_like(gradients, (query, key, value))

        return output, gradient

    return attention(query, key, value)


class _ChunkLoop:
    """One softmax a query over a window of chunks, in groups of chunks."""

    def __init__(self, query_tokens, key_tokens, window, dropping, dtype):
        self.query_tokens = query_tokens
        self.key_tokens = key_tokens
        self.window = window
        self.dropping = dropping
        self.dtype = dtype
        self.halo = (window.before, window.after)

    def attend(self, query, key, value):
        def forward(own, around, place):
            (q, tokens), (k, v, key_tokens) = own, around
            step = self._step(q, k, v, tokens, key_tokens, place)
            return blocks.attend(step, self.window, self.dropping), ()

        results, _ = self._over_groups(
            forward,
            (query, self.query_tokens),
            (key, value, self.key_tokens),
            ((self.dtype, self.dtype), ()),
        )
        return results

    def gradient(self, query, key, value, upstream):
        def backward(own, around, place):
            (q, tokens, here), (k, v, key_tokens) = own, around
            step = self._step(q, k, v, tokens, key_tokens, place)
            d_query, d_key, d_value = blocks.attend_gradient(
                step, here, self.window, self.dropping
            )
            return (d_query,), (d_key, d_value)

        d_own, d_around = self._over_groups(
            backward,
            (query, self.query_tokens, upstream),
            (key, value, self.key_tokens),
            ((self.dtype,), (self.dtype, self.dtype)),
        )
        return *d_own, *d_around

    def _over_groups(self, function, own, around, signature):
        query = own[0]
        plan = plan_groups(
            size(query, 0),
            size(query, 1),
            self.window.chunk_length,
            max(self.halo),
        )
        return over_groups(function, own, around, plan, self.halo, signature)

    def _step(self, query, key, value, tokens, key_tokens, place):
        query, key, value = (
            tf.cast(x, self.dtype) for x in (query, key, value)
        )
        return blocks.Step(
            query, key, value, tokens, key_tokens, *ranks(place, query)
        )


def ranks(place, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Row numbers and ranks of a group's queries, for dropout's counter."""
    rows, chunks, length = (size(queries, axis) for axis in range(3))
    rank = tf.reshape(tf.range(chunks * length), [1, chunks, length])
    return place.row + tf.range(rows), place.chunk * length + rank
