"""Additive biases of attention scores, and their gradients.

`softmax(q . k + bias) v`. A bias that is a function of positions is evaluated
for the pairs of each tile and never for length by length; the tensors that it
reads are arguments of the hand-written gradient.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.shapes import Length, ceil_div, pad_axis, size


class PositionBias(NamedTuple):
    """A bias that is a function of two positions and the head.

    Attributes:
        function: `(values, query_positions, key_positions, heads) -> bias`.
            Positions and heads are int32 and broadcast against each other;
            each element of the bias depends on their elements alone. At
            position -1, which is masked, it must be finite.
        values: the tensors that get gradients.
        num_heads: int.
    """

    function: Callable[..., tf.Tensor]
    values: Sequence[tf.Tensor]
    num_heads: int

    def of_rows(
        self, query: TokenInfo, key: TokenInfo, rows: tf.Tensor
    ) -> tf.Tensor:
        """The bias of pairs whose first axis has these rows of `g`."""
        shape = [-1] + [1] * (query.position.shape.rank - 1)
        heads = tf.reshape(rows % self.num_heads, shape)
        return self.of(query, key, heads)

    def of(
        self, query: TokenInfo, key: TokenInfo, heads: tf.Tensor
    ) -> tf.Tensor:
        """The bias of pairs of these heads."""
        return self.function(self.values, query.position, key.position, heads)

    def gradient(
        self,
        query: TokenInfo,
        key: TokenInfo,
        rows: tf.Tensor,
        d_scores: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Gradients with respect to the values.

        Args:
            query: as in `of_rows`.
            key: as in `of_rows`.
            rows: as in `of_rows`.
            d_scores: gradient with respect to the scores that the bias was
                added to.
        """
        if not self.values:
            return []
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.values)
            bias = tf.cast(self.of_rows(query, key, rows), d_scores.dtype)
            # The bias may be smaller than the scores it was added to.
            scores = tf.zeros_like(d_scores) + bias
        return tape.gradient(
            scores,
            list(self.values),
            output_gradients=d_scores,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )


def gradient_specs(bias: PositionBias | None) -> list[ArraySpec]:
    """Shapes and dtypes of the gradients with respect to the values."""
    values = () if bias is None else bias.values
    return [ArraySpec(x.shape, x.dtype) for x in values]


def as_gradient(
    bias: PositionBias | None, d_values: Sequence[tf.Tensor]
) -> PositionBias | None:
    """The gradient with respect to a bias, of its structure."""
    return None if bias is None else bias._replace(values=list(d_values))


class PairMatrix(NamedTuple):
    """A mask or bias of all pairs that the caller gave, or None.

    It is read a chunk of queries, or of keys, at a time.

    Attributes:
        matrix: `(batch or 1, num_heads or 1, queries, keys)`, or None.
        batch: Number of examples.
        num_heads: int.
        chunk_length: int.
    """

    matrix: tf.Tensor | None
    batch: Length
    num_heads: int
    chunk_length: int

    def of_queries(self, index) -> tf.Tensor | None:
        """A chunk of queries: `(g, c, keys)`."""
        return None if self.matrix is None else self._chunk(index, 2)

    def of_keys(self, index) -> tf.Tensor | None:
        """A chunk of keys, transposed: `(g, c, queries)`."""
        if self.matrix is None:
            return None
        return tf.transpose(self._chunk(index, 3), (0, 2, 1))

    def _chunk(self, index, axis) -> tf.Tensor:
        length = size(self.matrix, axis)
        spare = ceil_div(length, self.chunk_length) * self.chunk_length - length
        padded = pad_axis(self.matrix, axis, 0, spare)
        first, shape = [0] * 4, [size(padded, i) for i in range(4)]
        first[axis], shape[axis] = index * self.chunk_length, self.chunk_length
        part = tf.slice(padded, first, shape)
        shape = [self.batch, self.num_heads, *shape[2:]]
        part = tf.broadcast_to(part, shape)
        return tf.reshape(part, [self.batch * self.num_heads, *shape[2:]])

    def results(self, dtype: tf.DType) -> list[ArraySpec]:
        """Shape and dtype of what `gradient_of_keys` returns."""
        if self.matrix is None:
            return []
        batch, heads, queries = (size(self.matrix, i) for i in range(3))
        return [ArraySpec([batch, heads, self.chunk_length, queries], dtype)]

    def gradient_of_keys(self, d_scores: tf.Tensor) -> list[tf.Tensor]:
        """Gradient with respect to a chunk of keys' part, transposed."""
        if self.matrix is None:
            return []
        shape = [size(d_scores, i) for i in (1, 2)]
        d_scores = tf.reshape(d_scores, [self.batch, self.num_heads, *shape])
        shared = [axis for axis in (0, 1) if self.matrix.shape[axis] == 1]
        return [tf.reduce_sum(d_scores, axis=shared, keepdims=True)]

    def join(self, stacked: tf.Tensor) -> tf.Tensor:
        """`(n, batch, heads, c, queries)` to the matrix's shape."""
        turned = tf.transpose(stacked, (1, 2, 4, 0, 3))
        *shape, chunks, length = (size(turned, i) for i in range(5))
        joined = tf.reshape(turned, [*shape, chunks * length])
        return joined[..., : size(self.matrix, 3)]
