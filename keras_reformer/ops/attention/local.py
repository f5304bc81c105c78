"""Local attention: each chunk of positions to itself and its neighbours."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.bias import PositionBias, as_gradient
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
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


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
    d_query, d_key, d_value, *d_bias = engine.backward(
        layout, vectors, output_gradient(d_output, output, log_sum_exp)
    )
    d_vectors = Vectors(d_query, d_value, d_key)
    return d_vectors, as_gradient(engine.bias, d_bias), None, None, None, None
