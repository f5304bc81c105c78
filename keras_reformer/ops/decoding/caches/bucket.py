"""The cache of LSH attention with windows of buckets."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.decoding.attention import Step, attend_to_positions
from keras_reformer.ops.decoding.caches.storage import (
    index_of,
    with_capacity,
    write_step,
)
from keras_reformer.ops.loops.shapes import Length, size


class BucketCache(NamedTuple):
    """Query-keys and values, and the most recent tokens of each bucket.

    Attributes:
        key: `(batch, num_heads, capacity, key_dim)`, the query-keys.
        value: `(batch, num_heads, capacity, value_dim)`.
        recent: int32 `(batch, num_heads, num_hashes, num_buckets, window)`:
            positions of the most recent tokens of each bucket, in no order;
            -1 is an empty slot. About as many numbers as the longest
            sequence has tokens; a step's cost does not depend on the length.
    """

    key: tf.Tensor
    value: tf.Tensor
    recent: tf.Tensor

    @classmethod
    def of_prompt(
        cls,
        key: tf.Tensor,
        value: tf.Tensor,
        orders: tf.Tensor,
        buckets: tf.Tensor,
        num_buckets: int,
        window: Window,
        capacity: Length,
    ) -> "BucketCache":
        """The cache after a pass over a prompt.

        Args:
            key: the query-keys, `(batch, num_heads, length, key_dim)`.
            value: `(batch, num_heads, length, value_dim)`.
            orders: int32 `(batch, num_heads, num_hashes, length)`, from
                `sort_rounds`.
            buckets: int32 of the same shape. Masked tokens' buckets are
                `num_buckets`.
            num_buckets: int.
            window: of the layer.
            capacity: Greatest number of positions.
        """
        reach = window.before * window.chunk_length
        recent = _most_recent(orders, buckets, num_buckets, reach)
        key, value = (with_capacity(x, capacity) for x in (key, value))
        return cls(key, value, recent)

    def grown(self, capacity: Length) -> "BucketCache":
        """The same with room for more positions."""
        return self._replace(
            key=with_capacity(self.key, capacity),
            value=with_capacity(self.value, capacity),
        )

    def attend(
        self, step: Step, buckets: tf.Tensor
    ) -> tuple[tf.Tensor, "BucketCache"]:
        """The step's output `(batch, num_heads, 1, value_dim)`, and after.

        Args:
            step: the new tokens.
            buckets: int32 `(batch, num_heads, num_hashes)`, of these.
        """
        written = write_step(self, step, step.position)
        same = tf.gather(self.recent, buckets, batch_dims=3)
        output = attend_to_positions(step, **written, positions=same)
        after = self._replace(
            **written, recent=self._with_newest(same, buckets, step.position)
        )
        return output, after

    def _with_newest(self, same, buckets, position):
        """The newest token replaces the oldest of its bucket."""
        if not self.recent.shape[4]:
            return self.recent
        oldest = tf.argmin(same, axis=-1, output_type=tf.int32)
        index = index_of(buckets, oldest)
        newest = tf.broadcast_to(position[:, None, None], tf.shape(buckets))
        return tf.tensor_scatter_nd_update(self.recent, index, newest)


def _most_recent(orders, buckets, num_buckets, reach) -> tf.Tensor:
    """Positions `(b, h, num_hashes, num_buckets, reach)`, -1 for none.

    A bucket's tokens are neighbours in the sorted order, the most recent one
    last.
    """
    rows, length = tf.size(orders) // size(orders, 3), size(orders, 3)
    stride = num_buckets + 1
    number = tf.reshape(buckets, [rows, length])
    number += stride * tf.range(rows)[:, None]
    ones = tf.ones([rows * length], tf.int32)
    counts = tf.math.unsorted_segment_sum(
        ones, tf.reshape(number, [-1]), rows * stride
    )
    counts = tf.reshape(counts, [rows, stride])
    ends = tf.cumsum(counts, axis=-1)[:, :num_buckets, None]
    back = tf.range(reach)
    exists = back < counts[:, :num_buckets, None]
    index = tf.maximum(ends - 1 - back, 0)
    recent = tf.gather(tf.reshape(orders, [rows, length]), index, batch_dims=1)
    shape = [size(orders, 0), orders.shape[1], orders.shape[2]]
    return tf.reshape(
        tf.where(exists, recent, -1), [*shape, num_buckets, reach]
    )
