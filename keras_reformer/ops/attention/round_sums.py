"""What hash rounds attend to, and what is summed over them.

Over rounds LSH attention sums one softmax, and two gradients. Anywhere but on a
TPU these are vectors of their own (`VectorSums`); there both share rows
(`RowSums`, of `lanes.py`).
"""

from typing import NamedTuple, Protocol

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.kernel import OutputGradient
from keras_reformer.ops.attention.lanes import Lanes, shared_lanes
from keras_reformer.ops.attention.row_attention import RowAttention
from keras_reformer.ops.attention.windowed import Vectors, WindowedAttention
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.shapes import size, softmax_dtype
from keras_reformer.ops.loops.tiling import fits_in_group


class RoundSums(Protocol):
    """What the two passes of LSH attention ask."""

    @property
    def dtype(self) -> tf.DType:
        """Of the sums."""
        ...

    @property
    def lanes(self) -> Lanes | None:
        """Of `RowAttention`, or None."""
        ...

    @property
    def engine(self) -> type[WindowedAttention]:
        """The class of the engine that attends."""
        ...

    def vectors(self, query_key: tf.Tensor, value: tf.Tensor) -> Vectors:
        """What the engine attends to."""
        ...

    def no_keys(self, vectors: Vectors) -> tuple[tf.Tensor, ...]:
        """The softmax over no keys."""
        ...

    def merge(self, total: tuple, part: tuple) -> tuple[tf.Tensor, ...]:
        """One softmax over the keys of both."""
        ...

    def softmax(self, total: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        """Its output and log-sum-exp."""
        ...

    def output_gradient(
        self, d_output: OutputGradient, vectors: Vectors
    ) -> OutputGradient:
        """What the engine's backward pass takes."""
        ...

    def no_gradients(
        self, vectors: Vectors, d_value: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """The gradients before the first round.

        Args:
            vectors: what was attended to.
            d_value: `(g, t, value_dim)`. Gradient with respect to values that
                tokens took without attention.
        """
        ...

    def gradients(
        self, totals: tuple, d_value: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """With respect to query-keys and values, after the last round.

        Args:
            totals: of all rounds.
            d_value: as for `no_gradients`.
        """
        ...


def round_sums(
    query_key: tf.Tensor, value: tf.Tensor, num_hashes: int
) -> RoundSums:
    """The sums for these vectors, where they are traced."""
    dtype = softmax_dtype(query_key.dtype)
    lanes = shared_lanes(query_key.shape[-1], value.shape[-1], dtype)
    return (
        VectorSums(dtype)
        if lanes is None
        else RowSums(dtype, lanes, num_hashes)
    )


class VectorSums(NamedTuple):
    """Output and log-sum-exp; gradients of query-keys and of values."""

    dtype: tf.DType
    lanes: None = None

    engine = WindowedAttention

    def vectors(self, query_key: tf.Tensor, value: tf.Tensor) -> Vectors:
        norms = kernel.norms_of(tf.cast(query_key, self.dtype))
        return Vectors(query_key, value, norms=norms)

    def no_keys(self, vectors: Vectors) -> tuple[tf.Tensor, ...]:
        output = _zeros_like(vectors.value, self.dtype)
        return output, output[..., 0] + kernel.log_of_zero(self.dtype)

    def merge(self, total: tuple, part: tuple) -> tuple[tf.Tensor, ...]:
        return kernel.merge(total, part)

    def softmax(self, total: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        return total

    def output_gradient(
        self, d_output: OutputGradient, vectors: Vectors
    ) -> OutputGradient:
        return d_output

    def no_gradients(
        self, vectors: Vectors, d_value: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return _zeros_like(vectors.query, self.dtype), d_value

    def gradients(
        self, totals: tuple, d_value: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return totals


class RowSums(NamedTuple):
    """Rows of sums over keys; rows of both gradients."""

    dtype: tf.DType
    lanes: Lanes
    num_hashes: int

    engine = RowAttention

    def vectors(self, query_key: tf.Tensor, value: tf.Tensor) -> Vectors:
        rows = self.lanes.rows(query_key, value)
        return Vectors(rows, rows)

    def no_keys(self, vectors: Vectors) -> tuple[tf.Tensor, ...]:
        return (self.lanes.no_sums(self._zeros(vectors)),)

    def merge(self, total: tuple, part: tuple) -> tuple[tf.Tensor, ...]:
        if self.num_hashes == 1:
            # A TPU's compiler fails where it folds a product with constants.
            return part
        return (self.lanes.merge_sums(*total, *part),)

    def softmax(self, total: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        return self.lanes.softmax(*total)

    def output_gradient(
        self, d_output: OutputGradient, vectors: Vectors
    ) -> OutputGradient:
        rows = self.lanes.gradient_rows(d_output, vectors.query)
        return OutputGradient(rows, None, None)

    def no_gradients(
        self, vectors: Vectors, d_value: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return (self._zeros(vectors),)

    def gradients(
        self, totals: tuple, d_value: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        d_query_key, d_attended = self.lanes.split(*totals)
        return d_query_key, d_attended + d_value

    def _zeros(self, vectors: Vectors) -> tf.Tensor:
        if fits_in_group(vectors.query):
            # Constants of so few rows are filled on the chip.
            return tf.zeros_like(vectors.query, self.dtype)
        return _zeros_like(vectors.query, self.dtype)


def _zeros_like(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    shape = [size(x, axis) for axis in range(x.shape.rank)]
    return zeros_after(x, shape, dtype)
