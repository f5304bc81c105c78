"""What all caches share: capacity, and writing a step's key and value."""

import tensorflow as tf

from keras_reformer.ops.decoding.attention import Step
from keras_reformer.ops.loops.shapes import Length, at_least, pad_axis, size
from keras_reformer.ops.random import grid


def with_capacity(x: tf.Tensor, capacity: Length, axis: int = 2) -> tf.Tensor:
    """The first `capacity` slots along an axis, padded with zeros."""
    spare = at_least(0, capacity - size(x, axis))
    padded = pad_axis(x, axis, 0, spare)
    shape = [size(padded, index) for index in range(padded.shape.rank)]
    shape[axis] = capacity
    return tf.slice(padded, [0] * len(shape), shape)


def grow(cache, capacity: Length):
    """A structure of caches with room for more positions."""
    if hasattr(cache, "grown"):
        return cache.grown(capacity)
    return tuple(grow(part, capacity) for part in cache)


def write_step(cache, step: Step, slot: tf.Tensor) -> dict[str, tf.Tensor]:
    """Keys and values, with those of the step in each row's slot.

    Args:
        cache: has `key` and `value`, `(batch, num_heads, slots, dim)`.
        step: the new tokens.
        slot: int32 `(batch,)`.
    """
    heads = cache.key.shape[1]
    index = index_of(tf.repeat(slot[:, None], heads, axis=1))
    new = {"key": step.key, "value": step.value}
    return {
        name: tf.tensor_scatter_nd_update(
            getattr(cache, name),
            index,
            tf.cast(x[:, :, 0], getattr(cache, name).dtype),
        )
        for name, x in new.items()
    }


def index_of(*last: tf.Tensor) -> tf.Tensor:
    """Indices of one element of each vector, or matrix, of a tensor.

    Args:
        *last: int32, of the shape of all axes but the last ones: the index
            along each of these.
    """
    shape = [size(last[0], axis) for axis in range(last[0].shape.rank)]
    axes = [tf.broadcast_to(x, shape) for x in grid(shape)]
    return tf.stack([*axes, *last], axis=-1)
