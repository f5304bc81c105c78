"""Local attention: each chunk of positions to itself and its neighbours."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.bias import PositionBias, as_gradient
from keras_reformer.ops.attention.exact import exact_attention
from keras_reformer.ops.attention.global_tokens import (
    GlobalTokens,
    add_to_first,
    with_global_queries,
)
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    output_gradient,
)
from keras_reformer.ops.attention.layouts import PositionLayout
from keras_reformer.ops.attention.segments import Segments
from keras_reformer.ops.attention.tokens import (
    merge_heads_into_batch,
    token_positions,
)
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.attention.windowed import Vectors, WindowedAttention
from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.scan import add_each
from keras_reformer.ops.loops.shapes import size, softmax_dtype


def local_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    window: Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    dropout: AttentionDropout | None = None,
    bias: PositionBias | None = None,
    segments: Segments | None = None,
) -> tf.Tensor:
    """Attention of each position to its own and the neighbouring chunks.

    Args:
        query: Tensor of shape `(batch, num_heads, length, key_dim)`.
        key: Tensor of the same shape, already scaled.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        window: which chunks, and whether causal.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
        wrap: bool. The first chunk's neighbour is the last.
        dropout: of the attention weights.
        bias: added to the scores.
        segments: packed documents, whose chunks begin anew in each, or None.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least: zero at masked positions and where no key is visible.
    """
    heads = query, key, value
    batch, num_heads, length = size(query, 0), query.shape[1], size(query, 2)
    positions = token_positions(
        mask, batch * num_heads, num_heads, length, segments
    )
    chunk = None
    if segments is not None:
        chunk = segments.chunks(window.chunk_length, window.reach + 1)
        chunk = tf.repeat(chunk, num_heads, axis=0)
        window = window.for_documents()
    query, key, value = map(merge_heads_into_batch, (query, key, value))
    attention = custom_vjp(_forward, _backward)
    output = attention(
        Vectors(query, value, key),
        bias,
        _Tokens(positions, chunk),
        window,
        wrap,
        dropout,
    )
    output = tf.where(positions[..., None] >= 0, output, 0.0)
    output = tf.reshape(output, [batch, num_heads, length, value.shape[-1]])
    if not window.num_global or window.causal:
        return output
    of_global = _global_queries(heads, window, mask, dropout, bias)
    return with_global_queries(output, of_global, window)


def _global_queries(heads, window, mask, dropout, bias) -> tf.Tensor:
    """What global tokens see in a layer that is not causal: everything."""
    query, key, value = heads
    count = window.num_global
    return exact_attention(
        query[:, :, :count],
        key,
        value,
        query_mask=None if mask is None else mask[:, :count],
        mask=mask,
        dropout=dropout,
        bias=bias,
    )


class _Tokens(NamedTuple):
    """What `PositionLayout` reads of the tokens, each `(g, t)`.

    Attributes:
        position: -1 where masked.
        chunk: `TokenInfo.chunk`, or None.
    """

    position: tf.Tensor
    chunk: tf.Tensor | None


class _Residuals(NamedTuple):
    """What lives between the passes.

    Attributes:
        engine: window, dropout and bias.
        vectors: queries, keys and values, an argument.
        tokens: an argument.
        wrap: an argument.
        output: `(g, t, value_dim)`.
        log_sum_exp: `(g, t)`.
    """

    engine: WindowedAttention
    vectors: Vectors
    tokens: _Tokens
    wrap: bool
    output: tf.Tensor
    log_sum_exp: tf.Tensor


def _forward(
    vectors: Vectors,
    bias: PositionBias | None,
    tokens: _Tokens,
    window: Window,
    wrap: bool,
    dropout: AttentionDropout | None,
) -> tuple[tf.Tensor, _Residuals]:
    dtype = softmax_dtype(vectors.query.dtype)
    engine = WindowedAttention(window, dtype, dropout, bias)
    layout = _layout(tokens, engine, wrap)
    output, log_sum_exp = engine.forward(layout, vectors)
    if window.num_global:
        global_tokens = GlobalTokens(window, tokens.position, dropout, bias)
        output, log_sum_exp = global_tokens.merge_into(
            (output, log_sum_exp),
            *_with_global_keys(global_tokens, vectors, dtype),
        )
    return output, _Residuals(
        engine, vectors, tokens, wrap, output, log_sum_exp
    )


def _layout(tokens: _Tokens, engine: WindowedAttention, wrap: bool):
    return PositionLayout(
        tokens.position, engine.window, engine.dtype, wrap, tokens.chunk
    )


def _backward(residuals: _Residuals, d_output: tf.Tensor) -> tuple:
    engine, vectors, tokens, wrap, output, log_sum_exp = residuals
    layout = _layout(tokens, engine, wrap)
    d_output = output_gradient(d_output, output, log_sum_exp)
    d_query, d_key, d_value, *d_bias = engine.backward(
        layout, vectors, d_output
    )
    if engine.window.num_global:
        global_tokens = GlobalTokens(
            engine.window, tokens.position, engine.dropout, engine.bias
        )
        of_queries, of_keys, of_values, of_bias = global_tokens.gradients(
            *_with_global_keys(global_tokens, vectors, engine.dtype),
            d_output=d_output,
        )
        d_query += of_queries
        d_key = add_to_first(d_key, of_keys)
        d_value = add_to_first(d_value, of_values)
        d_bias = add_each(d_bias, of_bias)
    d_vectors = Vectors(d_query, d_value, d_key)
    return d_vectors, as_gradient(engine.bias, d_bias), None, None, None, None


def _with_global_keys(
    global_tokens: GlobalTokens, vectors: Vectors, dtype
) -> tuple:
    """All queries; keys and values of global tokens."""
    key = tf.cast(global_tokens.first(vectors.key), dtype)
    return vectors.query, key, global_tokens.first(vectors.value)
