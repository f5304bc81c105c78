"""Exact attention, a chunk of queries at a time: memory linear in length.

It is the function that LSH attention approximates when queries and keys are
shared, and the path that short sequences take.
"""

import tensorflow as tf

from keras_reformer.ops import blocks
from keras_reformer.ops.attention import (
    join_chunks,
    merge_heads_into_batch,
    split_into_chunks,
    token_positions,
)
from keras_reformer.ops.dropout import keep_scale
from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.shapes import (
    Length,
    ceil_div,
    size,
    softmax_dtype,
)
from keras_reformer.ops.stacking import Result, stack_steps
from keras_reformer.ops.waiting import zeros_after

QUERY_CHUNK_LENGTH = 128


def exact_shared_attention(
    query_key: tf.Tensor,
    value: tf.Tensor,
    *,
    causal: bool,
    mask: tf.Tensor | None = None,
    dropping: blocks.Dropping | None = None,
    query_chunk_length: int = QUERY_CHUNK_LENGTH,
) -> tf.Tensor:
    """Softmax attention of shared query-keys to all tokens.

    Keys are the queries at unit length. A token sees itself only when it
    sees nothing else.

    Args:
        query_key: Tensor of shape `(batch, num_heads, length, key_dim)`.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        causal: bool. Later tokens are hidden.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
        dropping: dropout of the attention weights.
        query_chunk_length: int. Queries taken at a time: the largest tensor
            is `(batch * num_heads, query_chunk_length, length)`.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least, zero at masked positions.
    """
    batch, num_heads, length = size(value, 0), value.shape[1], size(value, 2)
    rows = batch * num_heads
    positions = token_positions(mask, rows, num_heads, length)
    output = _attention(
        merge_heads_into_batch(query_key),
        merge_heads_into_batch(value),
        _ChunkLoop(
            causal,
            positions,
            query_chunk_length,
            softmax_dtype(query_key.dtype),
            dropping,
        ),
    )
    output = tf.where(positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _attention(query_key, value, loop: "_ChunkLoop") -> tf.Tensor:
    valid = loop.positions >= 0

    @first_order_gradient
    def attention(query_key, value):
        output, log_sum_exp = loop.attend(query_key, value)

        def gradient(d_output):
            upstream = blocks.upstream_of(d_output, output, log_sum_exp)
            d_query_key, d_value = loop.gradient(query_key, value, upstream)
            d_value += blocks.lonely_value_gradient(
                upstream.output, log_sum_exp, valid
            )
            return blocks.cast_like((d_query_key, d_value), (query_key, value))

        return blocks.give_lonely_their_value(
            output, value, log_sum_exp, valid
        ), gradient

    return attention(query_key, value)


class _ChunkLoop:
    """All tokens against a chunk at a time: of queries, then of keys."""

    def __init__(self, causal, positions, chunk_length, dtype, dropping):
        self.causal = causal
        self.positions = positions
        self.chunk_length = chunk_length
        self.dtype = dtype
        self.dropping = dropping
        self.length: Length = size(positions, 1)
        self.chunks = ceil_div(self.length, chunk_length)

    def attend(self, query_key, value):
        query_key, value = self._cast(query_key), self._cast(value)
        keys = query_key * blocks.inverse_length(query_key)
        own = self._chunked(query_key), self._chunked(self.positions, -1)

        def forward(index):
            queries, position = (x[:, index] for x in own)
            pairs = self._pairs(
                blocks.Tokens(position).along(-2),
                blocks.Tokens(self.positions).along(-1),
                self._ranks(index)[:, None],
                tf.range(self.length),
            )
            return blocks.attend(queries, keys, value, pairs)

        stacked, _ = self._over_chunks(forward, [value.shape[-1:], []], value)
        return tuple(map(self._join, stacked))

    def gradient(self, query_key, value, upstream):
        query_key = self._cast(query_key)
        inverse = blocks.inverse_length(query_key)
        keys = query_key * inverse
        own = [self._chunked(x) for x in (keys, self._cast(value))]
        own.append(self._chunked(self.positions, -1))

        def backward(index, d_queries):
            key, value, position = (x[:, index] for x in own)
            pairs = self._pairs(
                blocks.Tokens(self.positions).along(-1),
                blocks.Tokens(position).along(-2),
                tf.range(self.length),
                self._ranks(index)[:, None],
            )
            d_key, d_value, d_scores = blocks.attend_gradient(
                query_key, key, value, upstream, pairs
            )
            d_queries += tf.matmul(d_scores, key, transpose_a=True)
            return d_key, d_value, d_queries

        (d_keys, d_values), (d_queries,) = self._over_chunks(
            backward,
            [keys.shape[-1:], value.shape[-1:]],
            upstream.output,
            [zeros_after(upstream.output, tf.shape(keys), self.dtype)],
        )
        d_keys = blocks.unit_length_gradient(keys, inverse, self._join(d_keys))
        return d_queries + d_keys, self._join(d_values)

    def _over_chunks(self, step, shapes, after, totals=()):
        own = [size(self.positions, 0), self.chunk_length]
        results = [Result([*own, *shape], self.dtype) for shape in shapes]
        return stack_steps(step, self.chunks, results, after, totals)

    def _pairs(self, query, key, query_rank, key_rank) -> blocks.Pairs:
        seen = blocks.allowed(self.causal, False, query, key)
        if self.dropping is None:
            return blocks.Pairs(seen)
        rows = tf.range(size(self.positions, 0))[:, None, None]
        rate, seed = self.dropping
        kept = keep_scale(
            rate, seed, rows, query_rank, key_rank, dtype=self.dtype
        )
        return blocks.Pairs(seen, None, kept)

    def _ranks(self, index):
        return index * self.chunk_length + tf.range(self.chunk_length)

    def _cast(self, x):
        return tf.cast(x, self.dtype)

    def _chunked(self, x, padding=0):
        return split_into_chunks(x, self.chunk_length, padding)

    def _join(self, stacked):
        """`(n, g, c, ...)` to `(g, t, ...)`."""
        order = [1, 0, *range(2, stacked.shape.rank)]
        return join_chunks(tf.transpose(stacked, order), self.length)
