"""The cache of exact attention: all keys and values."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.decoding.attention import Step, attend
from keras_reformer.ops.decoding.caches.storage import (
    with_capacity,
    write_step,
)
from keras_reformer.ops.loops.shapes import Length, size


class ExactCache(NamedTuple):
    """All keys and values so far: `(batch, num_heads, capacity, dim)`."""

    key: tf.Tensor
    value: tf.Tensor

    @classmethod
    def of_prompt(
        cls, key: tf.Tensor, value: tf.Tensor, capacity: Length
    ) -> "ExactCache":
        """The cache after a pass over a prompt."""
        return cls(with_capacity(key, capacity), with_capacity(value, capacity))

    def grown(self, capacity: Length) -> "ExactCache":
        """The same with room for more positions."""
        return ExactCache.of_prompt(*self, capacity)

    def attend(self, step: Step) -> tuple[tf.Tensor, "ExactCache"]:
        """The step's output `(batch, num_heads, 1, value_dim)`, and after."""
        after = self._replace(**write_step(self, step, step.position))
        positions = tf.range(size(self.key, 2))[None, None]
        return attend(step, after.key, after.value, positions), after


def exact_at_first(
    exact: tf.Tensor, output: tf.Tensor, step: Step, longest: int
) -> tf.Tensor:
    """`exact` in rows of at most `longest` tokens, the new one included."""
    short = step.position < longest
    return tf.where(short[:, None, None, None], exact, output)


def attend_to_first(cache, step: Step, count: int) -> tf.Tensor:
    """Exact attention to the first `count` positions of a cache.

    Args:
        cache: has `key` and `value`, `(batch, num_heads, capacity, dim)`.
        step: the new tokens.
        count: int.
    """
    key, value = cache.key[:, :, :count], cache.value[:, :, :count]
    positions = tf.range(size(key, 2))[None, None]
    plain = step._replace(discount=False, importance=None, num_global=0)
    return attend(plain, key, value, positions)
