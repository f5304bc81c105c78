"""The cache of cross-attention: keys and values of the whole context."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.decoding.caches.storage import with_capacity
from keras_reformer.ops.loops.shapes import Length, size, softmax_dtype


class ContextCache(NamedTuple):
    """Keys and values of a context, which no step changes.

    Attributes:
        key: `(batch, key_value_heads, keys, key_dim)`, already scaled. Each
            head serves as many heads of queries in a row.
        value: `(batch, key_value_heads, keys, value_dim)`.
        mask: bool `(batch, keys)`, True at what is seen.
    """

    key: tf.Tensor
    value: tf.Tensor
    mask: tf.Tensor

    @classmethod
    def of(
        cls, key: tf.Tensor, value: tf.Tensor, mask: tf.Tensor | None
    ) -> "ContextCache":
        """The cache of a context; without a mask all of it is seen."""
        if mask is None:
            mask = tf.ones([size(key, 0), size(key, 2)], tf.bool)
        return cls(key, value, tf.cast(mask, tf.bool))

    def grown(self, capacity: Length) -> "ContextCache":
        """The same: its size is the context's."""
        return self

    def attend(self, query: tf.Tensor) -> tf.Tensor:
        """Attention of queries `(batch, num_heads, n, key_dim)` to all keys.

        Returns:
            Tensor of shape `(batch, num_heads, n, value_dim)` in float32 at
            least.
        """
        dtype = softmax_dtype(query.dtype)
        query, key, value = (
            tf.cast(x, dtype) for x in (query, self.key, self.value)
        )
        batch, heads, queries = (size(query, axis) for axis in range(3))
        shared_heads = size(key, 1)
        # Queries that share keys are the rows of one product.
        rows = heads // shared_heads * queries
        query = tf.reshape(query, [batch, shared_heads, rows, size(query, 3)])
        pairs = kernel.PairMask(self.mask[:, None, None, :])
        output, _ = kernel.attend(query, key, value, pairs)
        return tf.reshape(output, [batch, heads, queries, size(value, 3)])


def pad_contexts(cache, width: Length):
    """A structure of caches whose contexts have this many keys."""
    if isinstance(cache, ContextCache):
        axes = {"key": 2, "value": 2, "mask": 1}
        return ContextCache(
            **{
                name: with_capacity(getattr(cache, name), width, axis)
                for name, axis in axes.items()
            }
        )
    if hasattr(cache, "grown"):
        return cache
    return tuple(pad_contexts(part, width) for part in cache)
