"""The engine of windowed attention where query-keys and values share rows.

What `lanes.py` says of a TPU's rows, put in the places of `windowed.py` where
vectors are gathered, and where results are made of what the kernel returns.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.kernel import OutputGradient, PairMask
from keras_reformer.ops.attention.lanes import to_bfloat16
from keras_reformer.ops.attention.layouts import Layout, Slots
from keras_reformer.ops.attention.window import slice_chunk
from keras_reformer.ops.attention.windowed import Vectors, WindowedAttention
from keras_reformer.ops.loops.tiling import Tile


class RowAttention(WindowedAttention):
    """`WindowedAttention` of vectors whose `query` and `value` are one tensor
    of rows; its results are rows too.

    The gradient of the output that `backward` takes has its rows as `output`.
    """

    def _output_shapes(self, vectors: Vectors) -> Sequence:
        return [vectors.query.shape[-1:]]

    _gradient_shapes = _output_shapes

    def _attend(
        self,
        queries: tf.Tensor,
        keys: tf.Tensor,
        values: tf.Tensor,
        mask: PairMask,
    ) -> tuple[tf.Tensor, ...]:
        weights, undropped, largest = kernel.softmax_weights(
            queries, keys, mask, to_bfloat16
        )
        return (self.lanes.sums(weights, undropped, values, largest),)

    def _own_gradients(
        self,
        d_queries: tf.Tensor,
        d_keys: tf.Tensor,
        d_values: tf.Tensor,
        keys: tf.Tensor,
        norms: tf.Tensor | None,
    ) -> tuple[tf.Tensor, ...]:
        d_queries += self.lanes.unit_length_gradient(keys, norms, d_keys)
        return (self.lanes.join(d_queries, d_values),)

    def _inverse_norms(
        self,
        layout: Layout,
        vectors: Vectors,
        query_slots: Slots,
        tile: Tile,
        axis: int,
    ) -> tf.Tensor | None:
        if self.probability is None:
            return None
        (rows,) = layout.gather((vectors.query,), query_slots, tile)
        _, norms = self.lanes.unit_keys(rows)
        return tf.expand_dims(1 / norms[..., 0], axis)

    def _gather_by_query(
        self,
        layout: Layout,
        vectors: Vectors,
        query_slots: Slots,
        key_slots: Slots,
        tile: Tile,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """A window holds the queries too."""
        (rows,) = layout.gather((vectors.query,), key_slots, tile)
        keys, _ = self.lanes.unit_keys(rows)
        return slice_chunk(rows, self.window.before, self.window), keys, rows

    def _gather_by_key(
        self,
        layout: Layout,
        vectors: Vectors,
        d_output: OutputGradient,
        query_slots: Slots,
        key_slots: Slots,
        tile: Tile,
    ) -> tuple:
        """A window of queries holds the keys too. What stands for the norms
        is one over them."""
        rows, d_rows = layout.gather(
            (vectors.query, d_output.output), query_slots, tile
        )
        d_outputs = self.lanes.output_gradient(d_rows)
        own, d_own = (
            slice_chunk(x, self.window.after, self.window)
            for x in (rows, d_rows)
        )
        keys, inverse = self.lanes.keys_by_gradient(own, d_own)
        return (
            rows,
            d_outputs.where(query_slots.token >= 0),
            keys,
            self.lanes.only_value(own),
            inverse,
        )
