"""Additive biases of attention scores, and their gradients.

`softmax(q . k + bias) v`. A bias that follows from positions is evaluated for
the pairs of each step and never for length by length; what it is made of
takes part in the hand-written gradient as an input of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.kernel import TokenInfo
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.shapes import Length, ceil_div, pad_axis, size


class PositionBias(NamedTuple):
    """A bias that is a function of two positions and the head.

    Attributes:
        function: `(values, query_positions, key_positions, heads) -> bias`.
            Positions and heads are int32 and broadcast against each other;
            each element of the bias depends on their elements alone. What
            it says of position -1, which nobody sees, must be finite.
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
        """Gradients by the values, of scores that `of_rows` was added to."""
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


def values_of(bias: PositionBias | None) -> Sequence[tf.Tensor]:
    """What a bias, if there is one, is made of."""
    return () if bias is None else bias.values


def sums_of(bias: PositionBias | None) -> list[ArraySpec]:
    """What the gradients by those values are like."""
    return [ArraySpec(x.shape, x.dtype) for x in values_of(bias)]


def with_values(
    bias: PositionBias | None, values: Sequence[tf.Tensor]
) -> PositionBias | None:
    """The same bias, made of other tensors."""
    return None if bias is None else bias._replace(values=values)


class PairMatrix(NamedTuple):
    """A matrix of pairs that somebody gave, a mask or a bias, or None.

    It is used a chunk of queries, or of keys, at a time.

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
        return None if self.matrix is None else self._cut(index, 2)

    def of_keys(self, index) -> tf.Tensor | None:
        """A chunk of keys, transposed: `(g, c, queries)`."""
        if self.matrix is None:
            return None
        return tf.transpose(self._cut(index, 3), (0, 2, 1))

    def _cut(self, index, axis) -> tf.Tensor:
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
        """What `gradient_of_keys` is like."""
        if self.matrix is None:
            return []
        batch, heads, queries = (size(self.matrix, i) for i in range(3))
        return [ArraySpec([batch, heads, self.chunk_length, queries], dtype)]

    def gradient_of_keys(self, d_scores: tf.Tensor) -> list[tf.Tensor]:
        """Gradient by the matrix of a chunk of keys, transposed as these."""
        if self.matrix is None:
            return []
        shape = [size(d_scores, i) for i in (1, 2)]
        found = tf.reshape(d_scores, [self.batch, self.num_heads, *shape])
        shared = [axis for axis in (0, 1) if self.matrix.shape[axis] == 1]
        return [tf.reduce_sum(found, axis=shared, keepdims=True)]

    def join(self, stacked: tf.Tensor) -> tf.Tensor:
        """`(n, batch, heads, c, queries)` to the matrix's shape."""
        turned = tf.transpose(stacked, (1, 2, 4, 0, 3))
        *shape, chunks, own = (size(turned, i) for i in range(5))
        joined = tf.reshape(turned, [*shape, chunks * own])
        return joined[..., : size(self.matrix, 3)]
