"""Exact attention, a chunk of queries at a time: memory linear in length.

It is the function that LSH attention approximates when queries and keys are
shared, and the path that short sequences take.
"""

import tensorflow as tf

from keras_reformer.ops import blocks
from keras_reformer.ops.attention import (
    merge_heads_into_batch,
    token_positions,
)
from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.shapes import (
    Length,
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)

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
        _QueryLoop(
            blocks.Window(1, 0, 0, causal, False, False),
            positions,
            query_chunk_length,
            softmax_dtype(query_key.dtype),
            dropping,
        ),
    )
    output = tf.where(positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _attention(query_key, value, loop: "_QueryLoop") -> tf.Tensor:
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


class _QueryLoop:
    """All keys are one chunk; queries come a chunk at a time."""

    def __init__(self, window, positions, chunk_length, dtype, dropping):
        self.window = window
        self.positions = positions
        self.chunk_length = chunk_length
        self.dtype = dtype
        self.dropping = dropping
        self.length: Length = size(positions, 1)
        self.chunks = ceil_div(self.length, chunk_length)
        self.query_positions = self._chunks(positions, -1)

    def attend(self, query_key, value):
        keys, values = self._keys(query_key), tf.cast(value, self.dtype)
        queries = self._chunks(query_key)

        def forward(index):
            step = self._step(index, queries, keys, values)
            output, log_sum_exp = blocks.attend(
                step, self.window, self.dropping
            )
            return output[:, 0], log_sum_exp[:, 0]

        results = tf.map_fn(
            forward,
            tf.range(self.chunks),
            fn_output_signature=(self.dtype, self.dtype),
            parallel_iterations=1,
        )
        return tuple(map(self._join, results))

    def gradient(self, query_key, value, upstream):
        keys, values = self._keys(query_key), tf.cast(value, self.dtype)
        queries = self._chunks(query_key)
        spread = blocks.Upstream(*map(self._chunks, upstream))

        def backward(index, d_keys, d_values, d_queries):
            step = self._step(index, queries, keys, values)
            here = blocks.Upstream(*(x[:, index][:, None] for x in spread))
            d_query, d_key, d_value = blocks.attend_gradient(
                step, here, self.window, self.dropping
            )
            return (
                index + 1,
                d_keys + d_key[:, 0],
                d_values + d_value[:, 0],
                d_queries.write(index, d_query[:, 0]),
            )

        _, d_keys, d_values, d_queries = tf.while_loop(
            lambda index, *state: index < self.chunks,
            backward,
            (
                tf.constant(0),
                tf.zeros_like(keys),
                tf.zeros_like(values),
                tf.TensorArray(self.dtype, self.chunks),
            ),
            parallel_iterations=1,
            maximum_iterations=self.chunks,
        )
        vectors = tf.cast(query_key, self.dtype)
        d_keys = blocks.unit_length_gradient(vectors, d_keys)
        return self._join(d_queries.stack()) + d_keys, d_values

    def _keys(self, query_key):
        return blocks.unit_length(tf.cast(query_key, self.dtype))

    def _step(self, index, queries, keys, values) -> blocks.Step:
        rows = size(keys, 0)
        rank = index * self.chunk_length + tf.range(self.chunk_length)
        return blocks.Step(
            tf.cast(queries[:, index][:, None], self.dtype),
            keys[:, None],
            values[:, None],
            blocks.Tokens(self.query_positions[:, index][:, None]),
            blocks.Tokens(self.positions[:, None]),
            tf.range(rows),
            rank[None, None],
        )

    def _chunks(self, x, padding=0):
        rest = x.shape[2:].as_list()
        padded = pad_axis(
            x, 1, 0, self.chunks * self.chunk_length - self.length, padding
        )
        return tf.reshape(
            padded, [size(x, 0), self.chunks, self.chunk_length, *rest]
        )

    def _join(self, stacked):
        """`(n, g, c, ...)` to `(g, t, ...)`."""
        rest = stacked.shape[3:].as_list()
        order = [1, 0, 2, *range(3, 3 + len(rest))]
        joined = tf.reshape(
            tf.transpose(stacked, order),
            [size(stacked, 1), self.chunks * self.chunk_length, *rest],
        )
        return joined[:, : self.length]
