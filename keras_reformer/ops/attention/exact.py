"""Exact attention, a chunk of queries at a time: memory linear in length.

With shared queries and keys it is the function that LSH attention
approximates, and the path that short sequences take.
"""

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import (
    PairMatrix,
    PositionBias,
    sums_of,
    values_of,
    with_values,
)
from keras_reformer.ops.attention.local import (
    join_chunks,
    merge_heads_into_batch,
    split_into_chunks,
    token_positions,
)
from keras_reformer.ops.custom_vjp import first_order_gradient
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, scan
from keras_reformer.ops.loops.shapes import (
    ceil_div,
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
    attention_mask: tf.Tensor | None = None,
    attention_bias: tf.Tensor | None = None,
    bias: PositionBias | None = None,
    dropping: kernel.AttentionDropout | None = None,
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
        attention_bias: what to add to the scores, as in `exact_attention`.
        bias: what else to add to the scores.
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
        kernel.to_unit_length(shared),
        value,
        attention_bias,
        bias,
        causal=causal,
        sees_itself=False,
        mask=mask,
        attention_mask=attention_mask,
        dropping=dropping,
        chunk_length=query_chunk_length,
    )
    valid = tf.constant(True) if mask is None else mask[:, None, :]
    output = kernel.fill_fully_masked_rows(output, value, log_sum_exp, valid)
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
    attention_bias: tf.Tensor | None = None,
    bias: PositionBias | None = None,
    dropping: kernel.AttentionDropout | None = None,
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
        attention_bias: Float tensor `(batch or 1, num_heads or 1, queries,
            keys)`, added to the scores.
        bias: what else to add to the scores.
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
        attention_bias,
        bias,
        causal=causal,
        sees_itself=True,
        mask=mask,
        attention_mask=attention_mask,
        dropping=dropping,
        chunk_length=query_chunk_length,
    )
    if query_mask is None:
        return output
    return tf.where(query_mask[:, None, :, None], output, 0.0)


def _attention(query, key, value, attention_bias, bias, **options):
    """Output and log-sum-exp; the latter without a gradient."""
    num_heads = query.shape[1]
    given = () if attention_bias is None else (attention_bias,)

    @first_order_gradient
    def attention(query, key, value, *others):
        loop = _ChunkLoop(
            query,
            key,
            num_heads,
            attention_bias=others[0] if given else None,
            bias=with_values(bias, others[len(given) :]),
            **options,
        )
        output, log_sum_exp = loop.attend(query, key, value)

        def gradient(d_output, _):
            upstream = kernel.output_gradient(d_output, output, log_sum_exp)
            gradients = loop.gradient(query, key, value, upstream)
            return kernel.cast_like(gradients, (query, key, value, *others))

        return (output, log_sum_exp), gradient

    output, log_sum_exp = attention(
        *map(merge_heads_into_batch, (query, key, value)),
        *given,
        *values_of(bias),
    )
    shape = [size(query, 0), num_heads, size(query, 2)]
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
        num_heads,
        *,
        causal,
        sees_itself,
        mask,
        attention_mask,
        attention_bias,
        bias,
        dropping,
        chunk_length,
    ):
        rows = size(query, 0)
        self.queries = token_positions(None, rows, num_heads, size(query, 1))
        self.keys = token_positions(mask, rows, num_heads, size(key, 1))
        self.causal = causal
        self.sees_itself = sees_itself
        if attention_mask is not None:
            attention_mask = attention_mask[:, None]
        sizes = rows // num_heads, num_heads, chunk_length
        self.mask = PairMatrix(attention_mask, *sizes)
        self.matrix = PairMatrix(attention_bias, *sizes)
        self.bias = bias
        self.dropping = dropping
        self.chunk_length = chunk_length
        self.dtype = softmax_dtype(query.dtype)

    def attend(self, query, key, value):
        key, value = self._cast(key), self._cast(value)
        own = self._chunked(query), self._chunked(self.queries, -1)
        everyone = kernel.TokenInfo(self.keys).along(-1)

        def forward(index):
            queries, positions = (x[:, index] for x in own)
            here = kernel.TokenInfo(positions).along(-2)
            pairs = self._pairs_of_queries(index, here, everyone)
            return kernel.attend(self._cast(queries), key, value, pairs)

        shapes = [value.shape[-1:], []]
        stacked, _ = self._over_chunks(
            forward, self.queries, self._results(shapes), value
        )
        length = size(query, 1)
        return tuple(self._join(x, length) for x in stacked)

    def gradient(self, query, key, value, upstream):
        """Gradients by query, key, value and what the biases are made of."""
        query, after = self._cast(query), upstream.output
        own = self._chunked(key), self._chunked(value)
        own = *own, self._chunked(self.keys, -1)
        everyone = kernel.TokenInfo(self.queries).along(-1)

        def backward(index, d_queries, *sums):
            keys, values, positions = (x[:, index] for x in own)
            keys = self._cast(keys)
            here = kernel.TokenInfo(positions).along(-2)
            pairs = self._pairs_of_keys(index, everyone, here)
            d_keys, d_values, d_scores = kernel.attend_gradient(
                query, keys, self._cast(values), upstream, pairs
            )
            d_queries += tf.matmul(d_scores, keys, transpose_a=True)
            d_matrix = self.matrix.gradient_of_keys(d_scores)
            sums = self._add_bias_gradient(sums, everyone, here, d_scores)
            return d_keys, d_values, *d_matrix, d_queries, *sums

        shapes = [key.shape[-1:], value.shape[-1:]]
        stacked, (d_queries, *sums) = self._over_chunks(
            backward,
            self.keys,
            [*self._results(shapes), *self.matrix.results(self.dtype)],
            after,
            [
                zeros_after(after, tf.shape(query), self.dtype),
                *(zeros_after(after, *x) for x in sums_of(self.bias)),
            ],
        )
        d_keys, d_values, *d_matrix = stacked
        length = size(key, 1)
        return (
            d_queries,
            self._join(d_keys, length),
            self._join(d_values, length),
            *(self.matrix.join(x) for x in d_matrix),
            *sums,
        )

    def _add_bias_gradient(self, sums, query, key, d_scores):
        if self.bias is None:
            return sums
        parts = self.bias.gradient(query, key, self._rows(), d_scores)
        return [a + b for a, b in zip(sums, parts, strict=True)]

    def _over_chunks(self, step, positions, results, after, totals=()):
        count = ceil_div(size(positions, 1), self.chunk_length)
        return scan(step, count, results, after, totals)

    def _results(self, shapes):
        own = [size(self.keys, 0), self.chunk_length]
        return [ArraySpec([*own, *shape], self.dtype) for shape in shapes]

    def _pairs_of_queries(self, index, query, key):
        return self._pairs(
            query,
            key,
            self._ranks(index)[:, None],
            tf.range(size(self.keys, 1)),
            self.mask.of_queries(index),
            self.matrix.of_queries(index),
        )

    def _pairs_of_keys(self, index, query, key):
        return self._pairs(
            query,
            key,
            tf.range(size(self.queries, 1)),
            self._ranks(index)[:, None],
            self.mask.of_keys(index),
            self.matrix.of_keys(index),
        )

    def _pairs(self, query, key, query_rank, key_rank, seen, matrix):
        visible = kernel.allowed(self.causal, self.sees_itself, query, key)
        visible = visible if seen is None else visible & seen
        bias = None if matrix is None else self._cast(matrix)
        if self.bias is not None:
            added = self._cast(self.bias.of_rows(query, key, self._rows()))
            bias = added if bias is None else bias + added
        kept = None
        if self.dropping is not None:
            kept = self.dropping.kept(
                self._rows()[:, None, None],
                query_rank,
                key_rank,
                self.chunk_length,
                self.dtype,
            )
        return kernel.PairMask(visible, bias, kept)

    def _rows(self):
        return tf.range(size(self.keys, 0))

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
