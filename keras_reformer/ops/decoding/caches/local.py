"""The cache of local attention: a ring buffer as long as a window."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.decoding.attention import Step, attend
from keras_reformer.ops.decoding.caches.storage import (
    with_capacity,
    write_step,
)
from keras_reformer.ops.loops.shapes import Length, size


class LocalCache(NamedTuple):
    """Keys and values in a ring: position `p` is in slot `p % num_slots`.

    Those of global tokens lie before the ring.
    """

    key: tf.Tensor
    value: tf.Tensor

    @classmethod
    def of_prompt(
        cls,
        key: tf.Tensor,
        value: tf.Tensor,
        lengths: tf.Tensor,
        window: Window,
    ) -> "LocalCache":
        """The cache after a pass over rows of these lengths."""
        num_slots = (window.before + 1) * window.chunk_length
        position = _ring_positions(lengths - 1, num_slots)
        position = tf.clip_by_value(position, 0, size(key, 2) - 1)
        rings = (
            tf.gather(x, position, axis=2, batch_dims=1) for x in (key, value)
        )
        if not window.num_global:
            return cls(*rings)
        first = (with_capacity(x, window.num_global) for x in (key, value))
        return cls(*map(_join, first, rings))

    def grown(self, capacity: Length) -> "LocalCache":
        """The cache itself: a ring's size does not depend on the capacity."""
        return self

    def attend(
        self, step: Step, window: Window
    ) -> tuple[tf.Tensor, "LocalCache"]:
        """The step's output `(batch, num_heads, 1, value_dim)`, and after."""
        num_global = window.num_global
        num_slots = self.key.shape[2] - num_global
        slot = step.position % num_slots
        if num_global:
            is_global = step.position < num_global
            slot = tf.where(is_global, step.position, num_global + slot)
        after = self._replace(**write_step(self, step, slot))
        chunk = step.position // window.chunk_length
        first = (chunk - window.before) * window.chunk_length
        positions = _ring_positions(step.position, num_slots)
        positions = tf.where(positions >= first[:, None], positions, -1)
        if num_global:
            positions = _with_global(positions, num_global)
        output = attend(step, after.key, after.value, positions[:, None])
        return output, after


def _join(first: tf.Tensor, ring: tf.Tensor) -> tf.Tensor:
    return tf.concat([first, ring], axis=2)


def _with_global(positions: tf.Tensor, num_global: int) -> tf.Tensor:
    """Positions of global tokens, then those in a ring, where these hide."""
    shape = [size(positions, 0), num_global]
    first = tf.broadcast_to(tf.range(num_global), shape)
    others = tf.where(positions < num_global, -1, positions)
    return tf.concat([first, others], axis=1)


def _ring_positions(last: tf.Tensor, num_slots: int) -> tf.Tensor:
    """Positions in a ring's slots, `(b, num_slots)`, after position `last`.

    Negative where a slot is empty.
    """
    last = last[:, None]
    return last - (last - tf.range(num_slots)) % num_slots
