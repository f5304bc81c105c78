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

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias, gradient_specs
from keras_reformer.ops.attention.exact import QUERY_CHUNK_LENGTH
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    OutputGradient,
    PairMask,
)
from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.attention.window import Window, visible_by_position
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, add_each, scan
from keras_reformer.ops.loops.shapes import (
    ceil_div,
    join_steps,
    pad_axis,
    size,
    split_into_chunks,
)
from keras_reformer.ops.loops.tiling import tokens_in_tile


class GlobalTokens(NamedTuple):
    """Attention of all queries to the keys of the first tokens.

    A step takes a chunk of each row's queries, so that scores are those of a
    tile: `(g, chunk, num_global)`.

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
    ) -> tuple[tf.Tensor, ...]:
        """One softmax over what queries saw and the global tokens.

        Args:
            total: output `(g, t, value_dim)` and log-sum-exp `(g, t)`.
            query: `(g, t, key_dim)`.
            key: `(g, num_global, key_dim)`, in the total's dtype.
            value: `(g, num_global, value_dim)`.
        """
        value, dtype = tf.cast(value, key.dtype), key.dtype

        def step(index, positions, queries, *seen):
            queries = tf.cast(queries, dtype)
            mask = self._mask(index, self._pairs(positions, -2), -2, dtype)
            return kernel.merge(seen, kernel.attend(queries, key, value, mask))

        merged, _ = self._map_chunks(
            step, (query, *total), [value.shape[-1:], []], dtype
        )
        return merged

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
        value, dtype = tf.cast(value, key.dtype), key.dtype

        def step(index, positions, queries, *d_outputs):
            pairs = self._pairs(positions, -1)
            d_key, d_value, d_scores = kernel.attend_gradient(
                tf.cast(queries, dtype),
                key,
                value,
                OutputGradient(*d_outputs),
                self._mask(index, pairs, -1, dtype),
            )
            d_query = tf.matmul(d_scores, key, transpose_a=True)
            d_bias = []
            if self.bias is not None:
                d_bias = self.bias.gradient(*pairs, self._rows(), d_scores)
            return d_query, d_key, d_value, *d_bias

        sums = [ArraySpec(tf.shape(x), dtype) for x in (key, value)]
        (d_query,), (d_key, d_value, *d_bias) = self._map_chunks(
            step,
            (query, *d_output),
            [key.shape[-1:]],
            dtype,
            [*sums, *gradient_specs(self.bias)],
        )
        return d_query, d_key, d_value, d_bias

    def _map_chunks(
        self, function, of_queries, shapes, dtype, sums=()
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
        """Maps over chunks of all rows' queries.

        Args:
            function: takes a chunk's index, positions and part of each of
                `of_queries`; returns an array for each of `shapes`, then the
                sums'.
            of_queries: tensors `(g, t, ...)`.
            shapes: of what a query results in, in `dtype`.
            sums: `ArraySpec` of each array that is summed over chunks.
        """
        length, chunk = size(self.positions, 1), self._chunk_length()
        chunks = [split_into_chunks(self.positions, chunk, -1)]
        chunks += [split_into_chunks(x, chunk) for x in of_queries]
        after = of_queries[-1]

        def step(index, *totals):
            arrays = function(index, *(x[:, index] for x in chunks))
            parts = arrays[len(shapes) :]
            return *arrays[: len(shapes)], *add_each(totals, parts)

        rows = size(self.positions, 0)
        stacked, totals = scan(
            step,
            ceil_div(length, chunk),
            [ArraySpec([rows, chunk, *rest], dtype) for rest in shapes],
            after,
            [zeros_after(after, *spec) for spec in sums],
        )
        return tuple(join_steps(x, length) for x in stacked), totals

    def _chunk_length(self) -> int:
        """Queries of a row in a step: a tile's, over all rows."""
        rows, length = (size(self.positions, axis) for axis in (0, 1))
        if not isinstance(rows, int):
            return QUERY_CHUNK_LENGTH
        most = max(tokens_in_tile() // rows, 1)
        return min(length, most) if isinstance(length, int) else most

    def _pairs(
        self, positions: tf.Tensor, axis: int
    ) -> tuple[TokenInfo, TokenInfo]:
        """A chunk of queries along an axis of the scores, and all keys along
        the other."""
        query = TokenInfo(positions).along(axis)
        return query, TokenInfo(self.first(self.positions)).along(-3 - axis)

    def _mask(
        self,
        index,
        pairs: tuple[TokenInfo, TokenInfo],
        axis: int,
        dtype: tf.DType,
    ) -> PairMask:
        query, key = pairs
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
            chunk_length = self._chunk_length()
            rank = index * chunk_length + tf.range(chunk_length)
            slot = first + tf.range(size(key.position, -3 - axis))
            keep_scale = self.dropout.keep_scale(
                row=self._rows()[:, None, None],
                rank=_along(rank, axis),
                slot=_along(slot, -3 - axis),
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


def with_global_queries(
    output: tf.Tensor, of_global: tf.Tensor, window: Window
) -> tf.Tensor:
    """Outputs `(b, h, t, dim)` whose first ones are those of global tokens."""
    return tf.concat([of_global, output[:, :, window.num_global :]], axis=2)
