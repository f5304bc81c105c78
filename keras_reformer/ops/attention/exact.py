"""Exact attention, a chunk of queries at a time: memory linear in length.

With shared queries and keys it is the function that LSH attention
approximates, and the path that short sequences take.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import (
    PairMatrix,
    PositionBias,
    as_gradient,
    gradient_specs,
)
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.segments import Segments
from keras_reformer.ops.attention.tokens import (
    TokenInfo,
    merge_heads_into_batch,
    token_info,
)
from keras_reformer.ops.attention.window import visible_by_position
from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, add_each, scan
from keras_reformer.ops.loops.shapes import (
    Length,
    ceil_div,
    join_steps,
    map_tensors,
    size,
    softmax_dtype,
    split_into_chunks,
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
    dropout: AttentionDropout | None = None,
    query_chunk_length: int = QUERY_CHUNK_LENGTH,
    segments: Segments | None = None,
    num_queries: int | None = None,
) -> tf.Tensor:
    """Softmax attention of shared query-keys to all tokens.

    Keys are the queries at unit length. A token sees itself only where it
    sees no other token.

    Args:
        query_key: Tensor of shape `(batch, num_heads, length, key_dim)`.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        causal: bool. Later tokens are hidden.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
        attention_mask: Boolean tensor `(batch, length, length)`.
        attention_bias: added to the scores, as in `exact_attention`.
        bias: added to the scores too.
        dropout: of the attention weights.
        query_chunk_length: int. Queries taken at a time: the largest tensor
            is `(batch * num_heads, query_chunk_length, length)`.
        segments: packed documents, or None.
        num_queries: int. How many of the first tokens attend. Defaults to
            `None`: all of them.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least, zero at masked positions.
    """
    shared = tf.cast(query_key, softmax_dtype(query_key.dtype))
    output, log_sum_exp = _attention(
        _Vectors(
            query_key[:, :, :num_queries] if num_queries else query_key,
            kernel.to_unit_length(shared),
            value,
            attention_bias,
        ),
        bias,
        _Masks(mask, attention_mask, dropout, segments),
        _Options(causal, False, query_key.shape[1], query_chunk_length),
    )
    valid = tf.constant(True) if mask is None else mask[:, None, :]
    if num_queries:
        value = value[:, :, :num_queries]
        valid = valid if mask is None else valid[:, :, :num_queries]
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
    dropout: AttentionDropout | None = None,
    query_chunk_length: int = QUERY_CHUNK_LENGTH,
    segments: Segments | None = None,
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
        bias: added to the scores too.
        dropout: of the attention weights.
        query_chunk_length: int. Queries taken at a time; in the backward
            pass, keys.
        segments: packed documents, for self-attention, or None.

    Returns:
        Tensor of shape `(batch, num_heads, queries, value_dim)` in float32 at
        least: zero at masked queries and where no key is visible.
    """
    output, _ = _attention(
        _Vectors(query, key, value, attention_bias),
        bias,
        _Masks(mask, attention_mask, dropout, segments),
        _Options(causal, True, query.shape[1], query_chunk_length),
    )
    if query_mask is None:
        return output
    return tf.where(query_mask[:, None, :, None], output, 0.0)


class _Vectors(NamedTuple):
    """What gets gradients: vectors `(g, t, dim)`, and a bias of all pairs."""

    query: tf.Tensor
    key: tf.Tensor
    value: tf.Tensor
    attention_bias: tf.Tensor | None


class _Masks(NamedTuple):
    """What hides keys or drops weights; as in `exact_attention`."""

    mask: tf.Tensor | None
    attention_mask: tf.Tensor | None
    dropout: AttentionDropout | None
    segments: Segments | None


class _Options(NamedTuple):
    """Static values.

    Attributes:
        causal: bool. Later positions are hidden.
        sees_itself: bool. Whether a token's own key is visible.
        num_heads: int.
        chunk_length: int. Queries, or in the backward pass keys, in a step.
    """

    causal: bool
    sees_itself: bool
    num_heads: int
    chunk_length: int


def _attention(
    vectors: _Vectors,
    bias: PositionBias | None,
    masks: _Masks,
    options: _Options,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Output and log-sum-exp; the latter without a gradient."""
    query, key, value, attention_bias = vectors
    shape = [size(query, 0), options.num_heads, size(query, 2)]
    query, key, value = map(merge_heads_into_batch, (query, key, value))
    vectors = _Vectors(query, key, value, attention_bias)
    attention = custom_vjp(_forward, _backward)
    output, log_sum_exp = attention(vectors, bias, masks, options)
    return (
        tf.reshape(output, [*shape, value.shape[-1]]),
        tf.stop_gradient(tf.reshape(log_sum_exp, shape)),
    )


def _forward(*args) -> tuple:
    vectors, *_ = args
    output, log_sum_exp = _ExactAttention(*args).forward(vectors)
    return (output, log_sum_exp), (args, output, log_sum_exp)


def _backward(residuals: tuple, d_output: tf.Tensor, _) -> tuple:
    args, output, log_sum_exp = residuals
    vectors, bias, *_ = args
    d_output = kernel.output_gradient(d_output, output, log_sum_exp)
    d_vectors, d_bias = _ExactAttention(*args).backward(vectors, d_output)
    return d_vectors, as_gradient(bias, d_bias), None, None


class _ExactAttention:
    """All keys against a chunk of queries at a time, then the reverse."""

    def __init__(
        self,
        vectors: _Vectors,
        bias: PositionBias | None,
        masks: _Masks,
        options: _Options,
    ):
        query, key, _, attention_bias = vectors
        mask, attention_mask, self.dropout, segments = masks
        num_rows, num_heads = size(query, 0), options.num_heads
        self.queries, self.keys = (
            token_info(visible, num_rows, num_heads, size(x, 1), segments)
            for visible, x in ((None, query), (mask, key))
        )
        if attention_mask is not None:
            attention_mask = attention_mask[:, None]
        sizes = num_rows // num_heads, num_heads, options.chunk_length
        self.attention_mask = PairMatrix(attention_mask, *sizes)
        self.attention_bias = PairMatrix(attention_bias, *sizes)
        self.bias = bias
        self.options = options
        self.dtype = softmax_dtype(query.dtype)

    def forward(self, vectors: _Vectors) -> tuple[tf.Tensor, ...]:
        """Output `(g, t, value_dim)` and log-sum-exp `(g, t)`."""
        key, value = self._cast(vectors.key), self._cast(vectors.value)
        query_chunks = self._chunks(vectors.query)
        query_tokens = self._token_chunks(self.queries)
        all_keys = self.keys.along(-1)

        def step(index):
            queries = query_chunks[:, index]
            query_info = query_tokens.chunk_at(index).along(-2)
            mask = self._mask_of_queries(index, query_info, all_keys)
            return kernel.attend(self._cast(queries), key, value, mask)

        stacked, _ = scan(
            step,
            self._num_chunks(self.queries),
            self._results([value.shape[-1:], []]),
            value,
        )
        length = size(vectors.query, 1)
        return tuple(join_steps(x, length) for x in stacked)

    def backward(
        self, vectors: _Vectors, d_output: kernel.OutputGradient
    ) -> tuple[_Vectors, list[tf.Tensor]]:
        """Gradients with respect to the vectors and the bias's values."""
        query, after = self._cast(vectors.query), d_output.output
        key_chunks = self._chunks(vectors.key), self._chunks(vectors.value)
        key_tokens = self._token_chunks(self.keys)
        all_queries = self.queries.along(-1)

        def step(index, d_query, *d_bias):
            keys, values = (self._cast(x[:, index]) for x in key_chunks)
            key_info = key_tokens.chunk_at(index).along(-2)
            mask = self._mask_of_keys(index, all_queries, key_info)
            d_keys, d_values, d_scores = kernel.attend_gradient(
                query, keys, values, d_output, mask
            )
            d_query += tf.matmul(d_scores, keys, transpose_a=True)
            d_matrix = self.attention_bias.gradient_of_keys(d_scores)
            d_bias = self._add_bias_gradient(
                d_bias, all_queries, key_info, d_scores
            )
            return d_keys, d_values, *d_matrix, d_query, *d_bias

        shapes = [vectors.key.shape[-1:], vectors.value.shape[-1:]]
        totals = [zeros_after(after, tf.shape(query), self.dtype)]
        totals += [zeros_after(after, *x) for x in gradient_specs(self.bias)]
        results = self._results(shapes)
        results += self.attention_bias.results(self.dtype)
        num_chunks = self._num_chunks(self.keys)
        stacked, (d_query, *d_bias) = scan(
            step, num_chunks, results, after, totals
        )
        d_key, d_value, *d_matrix = stacked
        length = size(vectors.key, 1)
        return _Vectors(
            d_query,
            join_steps(d_key, length),
            join_steps(d_value, length),
            self.attention_bias.join(*d_matrix) if d_matrix else None,
        ), d_bias

    def _add_bias_gradient(self, totals, query, key, d_scores):
        if self.bias is None:
            return totals
        parts = self.bias.gradient(query, key, self._rows(), d_scores)
        return add_each(totals, parts)

    def _token_chunks(self, tokens: TokenInfo) -> TokenInfo:
        return map_tensors(lambda x: self._chunks(x, -1), tokens)

    def _num_chunks(self, tokens: TokenInfo) -> Length:
        length = size(tokens.position, 1)
        return ceil_div(length, self.options.chunk_length)

    def _results(self, shapes) -> list[ArraySpec]:
        shape = [size(self.keys.position, 0), self.options.chunk_length]
        return [ArraySpec([*shape, *rest], self.dtype) for rest in shapes]

    def _mask_of_queries(self, index, query, key) -> kernel.PairMask:
        """A chunk of queries by rows, all keys by columns."""
        return self._mask(
            query,
            key,
            query_rank=self._ranks(index)[:, None],
            key_rank=tf.range(size(self.keys.position, 1)),
            attention_mask=self.attention_mask.of_queries(index),
            attention_bias=self.attention_bias.of_queries(index),
        )

    def _mask_of_keys(self, index, query, key) -> kernel.PairMask:
        """A chunk of keys by rows, all queries by columns."""
        return self._mask(
            query,
            key,
            query_rank=tf.range(size(self.queries.position, 1)),
            key_rank=self._ranks(index)[:, None],
            attention_mask=self.attention_mask.of_keys(index),
            attention_bias=self.attention_bias.of_keys(index),
        )

    def _mask(
        self,
        query: TokenInfo,
        key: TokenInfo,
        *,
        query_rank: tf.Tensor,
        key_rank: tf.Tensor,
        attention_mask: tf.Tensor | None,
        attention_bias: tf.Tensor | None,
    ) -> kernel.PairMask:
        visible = visible_by_position(
            self.options.causal, self.options.sees_itself, query, key
        )
        if attention_mask is not None:
            visible &= attention_mask
        bias, keep_scale = None, None
        if attention_bias is not None:
            bias = self._cast(attention_bias)
        if self.bias is not None:
            of_rows = self._cast(self.bias.of_rows(query, key, self._rows()))
            bias = of_rows if bias is None else bias + of_rows
        if self.dropout is not None:
            keep_scale = self.dropout.keep_scale(
                row=self._rows()[:, None, None],
                rank=query_rank,
                slot=key_rank,
                chunk_length=self.options.chunk_length,
                dtype=self.dtype,
            )
        return kernel.PairMask(visible, bias=bias, keep_scale=keep_scale)

    def _rows(self) -> tf.Tensor:
        return tf.range(size(self.keys.position, 0))

    def _ranks(self, index) -> tf.Tensor:
        length = self.options.chunk_length
        return index * length + tf.range(length)

    def _cast(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(x, self.dtype)

    def _chunks(self, x: tf.Tensor, padding: int = 0) -> tf.Tensor:
        return split_into_chunks(x, self.options.chunk_length, padding)
