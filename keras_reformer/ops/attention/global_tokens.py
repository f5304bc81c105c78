"""Global tokens: the first ones, which every query sees.

Whatever a window or a hash round shows a query, it sees the keys of the first
tokens too, in the same softmax (Beltagy et al. 2020, "Longformer", section
3.1; Xiao et al. 2023, "Efficient streaming language models with attention
sinks"). Windows hide them (`Window.num_global`), so that each counts once, and
the two outputs are merged by their log-sum-exps, as hash rounds are.

In a causal layer a query sees the global tokens before it. In any other, all
of them, and global tokens see all tokens: their queries get exact attention
(`with_global_queries`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    OutputGradient,
    PairMask,
)
from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.attention.window import Window, visible_by_position
from keras_reformer.ops.loops.shapes import pad_axis, size


class GlobalTokens(NamedTuple):
    """Attention of all queries to the keys of the first tokens.

    Scores are `(g, t, num_global)`: of a few tokens no more than queries.

    Attributes:
        window: of the layer.
        positions: int32 `(g, t)`, -1 where masked.
        dropout: of the weights, or None.
        bias: added to the scores, or None.
    """

    window: Window
    positions: tf.Tensor
    dropout: AttentionDropout | None
    bias: PositionBias | None

    def first(self, x: tf.Tensor) -> tf.Tensor:
        """The global tokens' part of `(g, t, ...)`."""
        return x[:, : self.window.num_global]

    def merge_into(
        self,
        total: tuple[tf.Tensor, tf.Tensor],
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One softmax over what queries saw and the global tokens.

        Args:
            total: output `(g, t, value_dim)` and log-sum-exp `(g, t)`.
            query: `(g, t, key_dim)`.
            key: `(g, num_global, key_dim)`, in the total's dtype.
            value: `(g, num_global, value_dim)`.
        """
        query, value = (tf.cast(x, key.dtype) for x in (query, value))
        part = kernel.attend(query, key, value, self._mask(-2, key.dtype))
        return kernel.merge(total, part)

    def gradients(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        d_output: OutputGradient,
    ) -> tuple:
        """The global keys' share of gradients with respect to queries, keys,
        values, and a list of the values of the bias.

        Args:
            query: as for `merge_into`, and so are `key` and `value`.
            d_output: of the whole softmax.
        """
        query, value = (tf.cast(x, key.dtype) for x in (query, value))
        d_key, d_value, d_scores = kernel.attend_gradient(
            query, key, value, d_output, self._mask(-1, key.dtype)
        )
        d_query = tf.matmul(d_scores, key, transpose_a=True)
        d_bias = []
        if self.bias is not None:
            pairs = self._pairs(-1)
            d_bias = self.bias.gradient(*pairs, self._rows(), d_scores)
        return d_query, d_key, d_value, d_bias

    def _pairs(self, axis: int) -> tuple[TokenInfo, TokenInfo]:
        """All queries along an axis of the scores, keys along the other."""
        query = TokenInfo(self.positions).along(axis)
        return query, TokenInfo(self.first(self.positions)).along(-3 - axis)

    def _mask(self, axis: int, dtype: tf.DType) -> PairMask:
        query, key = self._pairs(axis)
        window, bias, keep_scale = self.window, None, None
        visible = visible_by_position(
            window.causal, window.sees_itself, query, key
        )
        if self.bias is not None:
            of_rows = self.bias.of_rows(query, key, self._rows())
            bias = tf.cast(of_rows, dtype)
        if self.dropout is not None:
            # After the slots of a window.
            first = (window.reach + 1) * window.chunk_length
            rank, slot = (
                tf.range(size(x, 1))
                for x in (self.positions, self.first(self.positions))
            )
            keep_scale = self.dropout.keep_scale(
                row=self._rows()[:, None, None],
                rank=_along(rank, axis),
                slot=_along(first + slot, -3 - axis),
                chunk_length=window.chunk_length,
                dtype=dtype,
            )
        return PairMask(visible, bias=bias, keep_scale=keep_scale)

    def _rows(self) -> tf.Tensor:
        return tf.range(size(self.positions, 0))


def _along(x: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.expand_dims(x, -3 - axis)


def add_to_first(total: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Adds a gradient of the first tokens to that of all, `(g, t, ...)`."""
    rest = size(total, 1) - size(part, 1)
    return total + pad_axis(part, 1, 0, rest)


def add_each(
    totals: Sequence[tf.Tensor], parts: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Sums of gradients, of which those of tables may be sparse."""
    return [
        tf.convert_to_tensor(a) + tf.convert_to_tensor(b)
        for a, b in zip(totals, parts, strict=True)
    ]


def with_global_queries(
    output: tf.Tensor, of_global: tf.Tensor, window: Window
) -> tf.Tensor:
    """Outputs `(b, h, t, dim)` whose first ones are those of global tokens."""
    return tf.concat([of_global, output[:, :, window.num_global :]], axis=2)
