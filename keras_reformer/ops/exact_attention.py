"""Exact attention, a chunk of queries at a time: memory linear in length.

With shared queries and keys it is the function that LSH attention
approximates, and the path that short sequences take.
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
    ceil_div,
    pad_axis,
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
    attention_mask: tf.Tensor | None = None,
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
        attention_mask: Boolean tensor `(batch, length, length)`.
        dropping: dropout of the attention weights.
        query_chunk_length: int. Queries taken at a time: the largest tensor
            is `(batch * num_heads, query_chunk_length, length)`.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least, zero at masked positions.
    """
    shared = tf.cast(query_key, softmax_dtype(query_key.dtype))
    output, log_sum_exp = _attention(
        query_key,
        shared * blocks.inverse_length(shared),
        value,
        causal=causal,
        sees_itself=False,
        mask=mask,
        attention_mask=attention_mask,
        dropping=dropping,
        query_chunk_length=query_chunk_length,
    )
    valid = tf.constant(True) if mask is None else mask[:, None, :]
    output = blocks.give_lonely_their_value(output, value, log_sum_exp, valid)
    return tf.where(valid[..., None], output, 0.0)


def exact_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    *,
    causal: bool = False,
    query_mask: tf.Tensor | None = None,
    mask: tf.Tensor | None = None,
    attention_mask: tf.Tensor | None = None,
    dropping: blocks.Dropping | None = None,
    query_chunk_length: int = QUERY_CHUNK_LENGTH,
) -> tf.Tensor:
    """Softmax attention of queries to all keys, of the same sequence or not.

    Args:
        query: Tensor of shape `(batch, num_heads, queries, key_dim)`.
        key: Tensor of shape `(batch, num_heads, keys, key_dim)`, already
            scaled.
        value: Tensor of shape `(batch, num_heads, keys, value_dim)`.
        causal: bool. Keys at later positions are hidden.
        query_mask: Boolean tensor `(batch, queries)`, True at valid ones.
        mask: Boolean tensor `(batch, keys)`, True at valid ones.
        attention_mask: Boolean tensor `(batch, queries, keys)`, True where a
            query may see a key.
        dropping: dropout of the attention weights.
        query_chunk_length: int. Queries taken at a time; in the backward
            pass, keys.

    Returns:
        Tensor of shape `(batch, num_heads, queries, value_dim)` in float32 at
        least; zero at masked queries and where nothing is visible.
    """
    output, _ = _attention(
        query,
        key,
        value,
        causal=causal,
        sees_itself=True,
        mask=mask,
        attention_mask=attention_mask,
        dropping=dropping,
        query_chunk_length=query_chunk_length,
    )
    if query_mask is None:
        return output
    return tf.where(query_mask[:, None, :, None], output, 0.0)


def _attention(query, key, value, **options):
    """Output and log-sum-exp; the latter without a gradient."""
    loop = _ChunkLoop(query, key, **options)

    @first_order_gradient
    def attention(query, key, value):
        output, log_sum_exp = loop.attend(query, key, value)

        def gradient(d_output, _):
            upstream = blocks.upstream_of(d_output, output, log_sum_exp)
            gradients = loop.gradient(query, key, value, upstream)
            return blocks.cast_like(gradients, (query, key, value))

        return (output, log_sum_exp), gradient

    output, log_sum_exp = attention(
        *map(merge_heads_into_batch, (query, key, value))
    )
    shape = [size(query, 0), query.shape[1], size(query, 2)]
    return (
        tf.reshape(output, [*shape, value.shape[-1]]),
        tf.stop_gradient(tf.reshape(log_sum_exp, shape)),
    )


class _ChunkLoop:
    """All keys against a chunk of queries at a time, then the reverse."""

    def __init__(
        self,
        query,
        key,
        *,
        causal,
        sees_itself,
        mask,
        attention_mask,
        dropping,
        query_chunk_length,
    ):
        batch, self.num_heads = size(query, 0), query.shape[1]
        rows = batch * self.num_heads
        self.queries = token_positions(
            None, rows, self.num_heads, size(query, 2)
        )
        self.keys = token_positions(mask, rows, self.num_heads, size(key, 2))
        self.causal = causal
        self.sees_itself = sees_itself
        self.attention_mask = attention_mask
        self.dropping = dropping
        self.chunk_length = query_chunk_length
        self.dtype = softmax_dtype(query.dtype)

    def attend(self, query, key, value):
        key, value = self._cast(key), self._cast(value)
        own = self._chunked(query), self._chunked(self.queries, -1)

        def forward(index):
            queries, positions = (x[:, index] for x in own)
            pairs = self._pairs(
                blocks.Tokens(positions).along(-2),
                blocks.Tokens(self.keys).along(-1),
                self._ranks(index)[:, None],
                tf.range(size(self.keys, 1)),
                self._seen(index, axis=1),
            )
            return blocks.attend(self._cast(queries), key, value, pairs)

        shapes = [value.shape[-1:], []]
        stacked, _ = self._over_chunks(forward, self.queries, shapes, value)
        length = size(query, 1)
        return tuple(self._join(x, length) for x in stacked)

    def gradient(self, query, key, value, upstream):
        query = self._cast(query)
        own = self._chunked(key), self._chunked(value)
        own = *own, self._chunked(self.keys, -1)

        def backward(index, d_queries):
            keys, values, positions = (x[:, index] for x in own)
            keys = self._cast(keys)
            pairs = self._pairs(
                blocks.Tokens(self.queries).along(-1),
                blocks.Tokens(positions).along(-2),
                tf.range(size(self.queries, 1)),
                self._ranks(index)[:, None],
                self._seen(index, axis=2),
            )
            d_keys, d_values, d_scores = blocks.attend_gradient(
                query, keys, self._cast(values), upstream, pairs
            )
            d_queries += tf.matmul(d_scores, keys, transpose_a=True)
            return d_keys, d_values, d_queries

        (d_keys, d_values), (d_queries,) = self._over_chunks(
            backward,
            self.keys,
            [key.shape[-1:], value.shape[-1:]],
            upstream.output,
            [zeros_after(upstream.output, tf.shape(query), self.dtype)],
        )
        length = size(key, 1)
        return (
            d_queries,
            self._join(d_keys, length),
            self._join(d_values, length),
        )

    def _over_chunks(self, step, positions, shapes, after, totals=()):
        rows, length = size(positions, 0), size(positions, 1)
        own = [rows, self.chunk_length]
        results = [Result([*own, *shape], self.dtype) for shape in shapes]
        count = ceil_div(length, self.chunk_length)
        return stack_steps(step, count, results, after, totals)

    def _pairs(self, query, key, query_rank, key_rank, seen) -> blocks.Pairs:
        visible = blocks.allowed(self.causal, self.sees_itself, query, key)
        visible = visible if seen is None else visible & seen
        if self.dropping is None:
            return blocks.Pairs(visible)
        rows = tf.range(size(self.keys, 0))[:, None, None]
        rate, seed = self.dropping
        kept = keep_scale(
            rate, seed, rows, query_rank, key_rank, dtype=self.dtype
        )
        return blocks.Pairs(visible, None, kept)

    def _seen(self, index, axis):
        """What the attention mask says of a chunk, its own axis first."""
        if self.attention_mask is None:
            return None
        mask = self.attention_mask
        length = size(mask, axis)
        spare = ceil_div(length, self.chunk_length) * self.chunk_length
        mask = pad_axis(mask, axis, 0, spare - length, False)
        first, shape = [0, 0, 0], [size(mask, i) for i in range(3)]
        first[axis], shape[axis] = index * self.chunk_length, self.chunk_length
        part = tf.slice(mask, first, shape)
        part = part if axis == 1 else tf.transpose(part, (0, 2, 1))
        return tf.repeat(part, self.num_heads, axis=0)

    def _ranks(self, index):
        return index * self.chunk_length + tf.range(self.chunk_length)

    def _cast(self, x):
        return tf.cast(x, self.dtype)

    def _chunked(self, x, padding=0):
        return split_into_chunks(x, self.chunk_length, padding)

    def _join(self, stacked, length):
        """`(n, g, c, ...)` to `(g, length, ...)`."""
        order = [1, 0, *range(2, stacked.shape.rank)]
        return join_chunks(tf.transpose(stacked, order), length)
