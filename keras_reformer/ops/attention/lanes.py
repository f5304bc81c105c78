"""Query-key and value of a token side by side in one row of a TPU.

A TPU holds the last axis of an array in rows of 128 lanes and fills up what
is left of a row, so heads of 64 take the memory and the time of heads of 128;
and what it gathers it moves by rows. So there the two vectors of a token share
a row,

    row        query-key                     value
    sums       largest score, sum of p...    sum of p * value
    gradient   lse, row sum, 1 / norm, 0...  do

that is gathered once (p = exp(score - largest score): one product makes both
sums, and they are divided after the last round). Nothing is cut out of it:
lanes that a product must not see are zeroed in one of its factors, which costs
a matrix unit of 128 x 128 nothing, and lanes of a result that mean nothing are
overwritten later.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops import tracing
from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.kernel import OutputGradient
from keras_reformer.ops.loops.shapes import size
from keras_reformer.ops.loops.tiling import TPU_LANES

# Of 8 bits each, as many as a float32 has.
NUM_PARTS = 3


class Lanes(NamedTuple):
    """Which lanes of a row hold what.

    Attributes:
        key_dim: int. Lanes of the query-key, the first ones.
        value_dim: int. Lanes of the value, all others.
    """

    key_dim: int
    value_dim: int

    def rows(self, query_key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        """Rows `(..., key_dim + value_dim)`."""
        return tf.concat([query_key, value], axis=-1)

    def split(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What lies in the lanes of query-keys, and in those of values."""
        return rows[..., : self.key_dim], rows[..., self.key_dim :]

    def join(self, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """The first one's lanes of query-keys, the last one's of values."""
        return tf.where(self._is_key(first), first, last)

    def only_key(self, rows: tf.Tensor) -> tf.Tensor:
        """Zero in the lanes of values."""
        return tf.where(self._is_key(rows), rows, 0.0)

    def only_value(self, rows: tf.Tensor) -> tf.Tensor:
        """Zero in the lanes of query-keys."""
        return tf.where(self._is_key(rows), 0.0, rows)

    def unit_keys(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Query-keys as keys, zero in the lanes of values, and their norms.

        Returns:
            Tensors of the rows' shape: `kernel.to_unit_length` of the
            query-keys, and in each lane what they were divided by.
        """
        query_keys = self.only_key(rows)
        square = spread_sum(query_keys**2, rows.shape[-1], NUM_PARTS)
        norms = tf.sqrt(square + 1e-6 * self.key_dim)
        return query_keys / norms, norms

    def unit_length_gradient(
        self, keys: tf.Tensor, inverse_norms: tf.Tensor, d_keys: tf.Tensor
    ) -> tf.Tensor:
        """Gradient with respect to the query-keys of `keys_by_gradient`."""
        along = spread_sum(d_keys * keys, keys.shape[-1])
        return (d_keys - keys * along) * inverse_norms

    def sums(
        self,
        weights: tf.Tensor,
        undropped: tf.Tensor,
        values: tf.Tensor,
        largest: tf.Tensor,
    ) -> tf.Tensor:
        """Rows of sums over keys.

        Args:
            weights: from `kernel.softmax_weights` with `to_bfloat16`.
            undropped: the same tensor where there is no dropout.
            values: rows.
            largest: `(..., 1)`. The largest scores, rounded so.
        """
        values = self.only_value(values)
        ones = self.only_key(tf.ones_like(values))
        if weights is undropped:
            sums = tf.matmul(weights, values + ones)
        else:
            sums = tf.matmul(weights, values) + tf.matmul(undropped, ones)
        return self._with_largest(sums, largest)

    def no_sums(self, zeros: tf.Tensor) -> tf.Tensor:
        """Sums over no keys, from zeros of their shape."""
        return self._with_largest(zeros, kernel.log_of_zero(zeros.dtype))

    def merge_sums(self, total: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
        """Sums over the keys of both."""
        of_total, of_part = self._spread_largest(total, part)
        largest = tf.maximum(of_total, of_part)
        merged = total * tf.exp(of_total - largest)
        merged += part * tf.exp(of_part - largest)
        return self._with_largest(merged, largest)

    def softmax(self, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Output `(..., value_dim)` and log-sum-exp `(...)`."""
        largest, total = sums[..., 0], sums[..., 1]
        _, output = self.split(sums)
        output *= tf.math.divide_no_nan(tf.ones_like(total), total)[..., None]
        return output, kernel.add_log(largest, total)

    def gradient_rows(
        self, d_output: OutputGradient, rows: tf.Tensor
    ) -> tf.Tensor:
        """Rows of what the backward pass reads of each token."""
        query_keys = self.only_key(tf.cast(rows, d_output.output.dtype))
        square = tf.reduce_sum(query_keys**2, axis=-1)
        inverse = 1 / tf.sqrt(square + 1e-6 * self.key_dim)
        numbers = d_output.log_sum_exp, d_output.row_sum, inverse
        parts = [part for x in numbers for part in _bfloat16_parts(x)]
        lanes = tf.stack(parts, axis=-1)
        padding = [[0, 0]] * (lanes.shape.rank - 1)
        padding.append([0, self.key_dim - len(parts)])
        return self.rows(tf.pad(lanes, padding), d_output.output)

    def output_gradient(self, d_rows: tf.Tensor) -> OutputGradient:
        """The same again, the output's in the lanes of values.

        A product takes the numbers out of their lanes: they are needed along
        a row, and so it comes without a transposition.
        """
        which = tf.cast(_number_of_lane(d_rows) == [[0], [1]], d_rows.dtype)
        which = tf.broadcast_to(which, [*d_rows.shape[:-2], *which.shape])
        log_sum_exp, row_sum = tf.unstack(
            tf.matmul(which, d_rows, transpose_b=True), axis=-2
        )
        return OutputGradient(d_rows, log_sum_exp, row_sum)

    def keys_by_gradient(
        self, rows: tf.Tensor, d_rows: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Query-keys at unit length, zero in the lanes of values, and one
        over their norms, in each lane: a product spreads it."""
        dim = d_rows.shape[-1]
        which = tf.cast(_number_of_lane(d_rows) == 2, d_rows.dtype)
        inverse = _times(d_rows, tf.broadcast_to(which[:, None], [dim, dim]))
        return self.only_key(rows) * inverse, inverse

    def _with_largest(self, sums: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
        """Sums with the largest score in its lane, finite in any case."""
        least = to_bfloat16(kernel.log_of_zero(sums.dtype))
        first = tf.range(sums.shape[-1]) == 0
        return tf.where(first, tf.maximum(largest, least), sums)

    def _spread_largest(self, *sums: tf.Tensor) -> list[tf.Tensor]:
        """The largest score in each lane: exact, since bfloat16 holds it."""
        dim = sums[0].shape[-1]
        first = tf.cast(tf.range(dim)[:, None] == 0, sums[0].dtype)
        first = tf.broadcast_to(first, [dim, dim])
        return [_times(rows, first) for rows in sums]

    def _is_key(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.range(rows.shape[-1]) < self.key_dim


def shared_lanes(key_dim: int, value_dim: int, dtype: tf.DType) -> Lanes | None:
    """The lanes where this is traced for a TPU, whose rows hold both.

    Args:
        key_dim: int.
        value_dim: int.
        dtype: of scores and sums.
    """
    fits = key_dim >= 3 * NUM_PARTS and key_dim + value_dim <= TPU_LANES
    if not fits or dtype != tf.float32 or not tracing.for_tpu():
        return None
    return Lanes(key_dim, value_dim)


def _number_of_lane(d_rows: tf.Tensor) -> tf.Tensor:
    """Of the numbers that `gradient_rows` puts first."""
    return tf.range(d_rows.shape[-1]) // NUM_PARTS


def spread_sum(x: tf.Tensor, width: int, parts: int = 1) -> tf.Tensor:
    """Sums over the last axis, which becomes `width` equal sums.

    A TPU's matrix unit sums and spreads at once, by a product with ones, in
    a fraction of the time that its vector unit takes to do both.

    Args:
        x: Tensor of shape `(..., dim)`.
        width: int.
        parts: int. As how many numbers of 8 bits a TPU takes an addend.
    """
    addends = [x] if parts == 1 else _bfloat16_parts(x)
    ones = tf.ones([x.shape[-1], width], x.dtype)
    return sum(_times(part, ones) for part in addends)


def _times(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """A product over the last axis, whatever lies before it."""
    rest = [size(x, axis) for axis in range(x.shape.rank - 1)]
    product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix)
    return tf.reshape(product, [*rest, matrix.shape[-1]])


def _bfloat16_parts(x: tf.Tensor) -> list[tf.Tensor]:
    """Numbers that bfloat16 holds exactly and whose sum is `x`.

    A TPU rounds the factors of products to bfloat16. By bits, since XLA would
    take a cast and its inverse for nothing.
    """
    parts = []
    for _ in range(NUM_PARTS - 1):
        bits = tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), -(2**16))
        parts.append(tf.bitcast(bits, tf.float32))
        x -= parts[-1]
    return [*parts, x]


def to_bfloat16(x: tf.Tensor) -> tf.Tensor:
    """The nearest numbers that bfloat16 holds, as float32.

    What is subtracted from scores need not be their very maximum: it is off by
    a 512th, and their exponentials stay finite and above zero up to scores of
    40,000.
    """
    bits = tf.bitcast(x, tf.int32) + 2**15
    return tf.bitcast(tf.bitwise.bitwise_and(bits, -(2**16)), tf.float32)
