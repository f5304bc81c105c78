"""Local attention: each chunk of positions to itself and its neighbours."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.bias import PositionBias, as_gradient
from keras_reformer.ops.attention.exact import exact_attention
from keras_reformer.ops.attention.global_tokens import (
    GlobalTokens,
    add_each,
    add_to_first,
    with_global_queries,
)
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    output_gradient,
)
from keras_reformer.ops.attention.layouts import PositionLayout
from keras_reformer.ops.attention.tokens import (
    merge_heads_into_batch,
    token_positions,
)
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.attention.windowed import Vectors, WindowedAttention
from keras_reformer.ops.custom_vjp import custom_vjp
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

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least: zero at masked positions and where no key is visible.
    """
    heads = query, key, value
    batch, num_heads, length = size(query, 0), query.shape[1], size(query, 2)
    positions = token_positions(mask, batch * num_heads, num_heads, length)
    query, key, value = map(merge_heads_into_batch, (query, key, value))
    attention = custom_vjp(_forward, _backward)
    output = attention(
        Vectors(query, value, key), bias, positions, window, wrap, dropout
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


class _Residuals(NamedTuple):
    """What lives between the passes.

    Attributes:
        engine: window, dropout and bias.
        vectors: queries, keys and values, an argument.
        positions: `(g, t)`, -1 where masked, an argument.
        wrap: an argument.
        output: `(g, t, value_dim)`.
        log_sum_exp: `(g, t)`.
    """

    engine: WindowedAttention
    vectors: Vectors
    positions: tf.Tensor
    wrap: bool
    output: tf.Tensor
    log_sum_exp: tf.Tensor


def _forward(
    vectors: Vectors,
    bias: PositionBias | None,
    positions: tf.Tensor,
    window: Window,
    wrap: bool,
    dropout: AttentionDropout | None,
) -> tuple[tf.Tensor, _Residuals]:
    dtype = softmax_dtype(vectors.query.dtype)
    engine = WindowedAttention(window, dtype, dropout, bias)
    layout = PositionLayout(positions, window, dtype, wrap)
    output, log_sum_exp = engine.forward(layout, vectors)
    if window.num_global:
        tokens = GlobalTokens(window, positions, dropout, bias)
        output, log_sum_exp = tokens.merge_into(
            (output, log_sum_exp), *_with_global_keys(tokens, vectors, dtype)
        )
    return output, _Residuals(
        engine, vectors, positions, wrap, output, log_sum_exp
    )


def _backward(residuals: _Residuals, d_output: tf.Tensor) -> tuple:
    engine, vectors, positions, wrap, output, log_sum_exp = residuals
    layout = PositionLayout(positions, engine.window, engine.dtype, wrap)
    d_output = output_gradient(d_output, output, log_sum_exp)
    d_query, d_key, d_value, *d_bias = engine.backward(
        layout, vectors, d_output
    )
    if engine.window.num_global:
        tokens = GlobalTokens(
            engine.window, positions, engine.dropout, engine.bias
        )
        of_queries, of_keys, of_values, of_bias = tokens.gradients(
            *_with_global_keys(tokens, vectors, engine.dtype), d_output=d_output
        )
        d_query += of_queries
        d_key = add_to_first(d_key, of_keys)
        d_value = add_to_first(d_value, of_values)
        d_bias = add_each(d_bias, of_bias)
    d_vectors = Vectors(d_query, d_value, d_key)
    return d_vectors, as_gradient(engine.bias, d_bias), None, None, None, None


def _with_global_keys(tokens: GlobalTokens, vectors: Vectors, dtype) -> tuple:
    """All queries; keys and values of global tokens."""
    key = tf.cast(tokens.first(vectors.key), dtype)
    return vectors.query, key, tokens.first(vectors.value)
