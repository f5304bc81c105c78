"""Decode caches, and the step that each of them makes possible.

A step attends from one new token of each row to what the row has cached, and
costs no more than the keys it looks at. Rows are at positions of their own,
so prompts of unequal lengths share a batch.

    cache          a step looks at
    ExactCache     every cached token
    LocalCache     the chunks of its window, in a ring
    BucketCache    in each round, the most recent tokens of its bucket
    ChunkCache     in each round, the chunks around its rank in sorted order

With buckets that is what a full pass over any longer sequence shows it, with
chunks what a full pass over the sequence so far would.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.decoding.attention import (
    Step,
    attend,
    attend_to_positions,
)
from keras_reformer.ops.loops.shapes import (
    Length,
    at_least,
    ceil_div,
    pad_axis,
    size,
)
from keras_reformer.ops.random import grid


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
        after = self._replace(**_written(self, step, step.position))
        positions = tf.range(size(self.key, 2))[None, None]
        return attend(step, after.key, after.value, positions), after


class LocalCache(NamedTuple):
    """A ring of keys and values: position `p` is in place `p % places`."""

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
        places = (window.before + 1) * window.chunk_length
        position = _ring_positions(lengths - 1, places)
        position = tf.clip_by_value(position, 0, size(key, 2) - 1)
        rings = (
            tf.gather(x, position, axis=2, batch_dims=1) for x in (key, value)
        )
        return cls(*rings)

    def grown(self, capacity: Length) -> "LocalCache":
        """A ring is as large as it will be."""
        return self

    def attend(
        self, step: Step, window: Window
    ) -> tuple[tf.Tensor, "LocalCache"]:
        """The step's output `(batch, num_heads, 1, value_dim)`, and after."""
        places = self.key.shape[2]
        after = self._replace(**_written(self, step, step.position % places))
        chunk = step.position // window.chunk_length
        first = (chunk - window.before) * window.chunk_length
        positions = _ring_positions(step.position, places)
        positions = tf.where(positions >= first[:, None], positions, -1)
        output = attend(step, after.key, after.value, positions[:, None])
        return output, after


class BucketCache(NamedTuple):
    """Query-keys and values, and who was last in each bucket.

    Attributes:
        key: `(batch, num_heads, capacity, key_dim)`, the query-keys.
        value: `(batch, num_heads, capacity, value_dim)`.
        recent: int32 `(batch, num_heads, num_hashes, num_buckets, window)`:
            positions of the most recent tokens of each bucket, in no order;
            -1 is an empty place. About as many numbers as the longest
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
        written = _written(self, step, step.position)
        same = tf.gather(self.recent, buckets, batch_dims=3)
        output = attend_to_positions(step, **written, positions=same)
        after = self._replace(
            **written, recent=self._with_newest(same, buckets, step.position)
        )
        return output, after

    def _with_newest(self, same, buckets, position):
        """The newest token takes the place of the oldest of its bucket."""
        if not self.recent.shape[4]:
            return self.recent
        oldest = tf.argmin(same, axis=-1, output_type=tf.int32)
        index = _index_of(buckets, oldest)
        newest = tf.broadcast_to(position[:, None, None], tf.shape(buckets))
        return tf.tensor_scatter_nd_update(self.recent, index, newest)


class ChunkCache(NamedTuple):
    """Query-keys and values, and the sorted order of each round.

    Attributes:
        key: `(batch, num_heads, capacity, key_dim)`, the query-keys.
        value: `(batch, num_heads, capacity, value_dim)`.
        orders: int32 `(batch, num_heads, num_hashes, capacity)`: at each
            rank, the position there. What lies behind the sequence is void.
        buckets: int32 of the same shape: at each position, its bucket.
    """

    key: tf.Tensor
    value: tf.Tensor
    orders: tf.Tensor
    buckets: tf.Tensor

    @classmethod
    def of_prompt(
        cls,
        key: tf.Tensor,
        value: tf.Tensor,
        orders: tf.Tensor,
        buckets: tf.Tensor,
        capacity: Length,
    ) -> "ChunkCache":
        """The cache after a pass over a prompt; see `BucketCache`."""
        key, value = (with_capacity(x, capacity) for x in (key, value))
        orders, buckets = (
            with_capacity(x, capacity, axis=3) for x in (orders, buckets)
        )
        return cls(key, value, orders, buckets)

    def grown(self, capacity: Length) -> "ChunkCache":
        """The same with room for more positions."""
        return ChunkCache.of_prompt(*self, capacity)

    def attend(
        self, step: Step, buckets: tf.Tensor, window: Window, wrap: bool
    ) -> tuple[tf.Tensor, "ChunkCache"]:
        """The step's output `(batch, num_heads, 1, value_dim)`, and after.

        Args:
            step: the new tokens.
            buckets: int32 `(batch, num_heads, num_hashes)`, of these.
            window: which chunks a token sees.
            wrap: bool. Rounds are one circle of chunks.
        """
        position = step.position[:, None, None, None]
        places = tf.range(size(self.orders, 3))
        before = (self.buckets <= buckets[..., None]) & (places < position)
        rank = tf.math.count_nonzero(before, axis=3, dtype=tf.int32)
        orders = _inserted(self.orders, rank[..., None], position)
        ranks = _ranks_around(
            rank, step.position + 1, window, wrap, size(places, 0)
        )
        around = _take_ranks(orders, ranks)
        written = _written(self, step, step.position)
        output = attend_to_positions(step, **written, positions=around)
        known = tf.where(places == position, buckets[..., None], self.buckets)
        return output, ChunkCache(**written, orders=orders, buckets=known)


def with_capacity(x: tf.Tensor, capacity: Length, axis: int = 2) -> tf.Tensor:
    """The first `capacity` places along an axis, filled up with zeros."""
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


def exact_at_first(
    exact: tf.Tensor, output: tf.Tensor, step: Step, longest: int
) -> tf.Tensor:
    """`exact` in rows of at most `longest` tokens with this one."""
    short = step.position < longest
    return tf.where(short[:, None, None, None], exact, output)


def attend_to_first(
    cache: BucketCache | ChunkCache, step: Step, count: int
) -> tf.Tensor:
    """Exact attention to the first `count` positions of a cache's vectors."""
    key, value = cache.key[:, :, :count], cache.value[:, :, :count]
    positions = tf.range(size(key, 2))[None, None]
    everything = step._replace(discount=False, importance=None)
    return attend(everything, key, value, positions)


def _written(cache, step, place) -> dict[str, tf.Tensor]:
    """Keys and values with those of the step at a place of each row."""
    heads = cache.key.shape[1]
    index = _index_of(tf.repeat(place[:, None], heads, axis=1))
    new = {"key": step.key, "value": step.value}
    return {
        name: tf.tensor_scatter_nd_update(
            getattr(cache, name),
            index,
            tf.cast(x[:, :, 0], getattr(cache, name).dtype),
        )
        for name, x in new.items()
    }


def _index_of(*last: tf.Tensor) -> tf.Tensor:
    """Indices of one element of each vector, or matrix, of a tensor.

    Args:
        *last: int32, of the shape of all axes but the last ones: the index
            along each of these.
    """
    shape = [size(last[0], axis) for axis in range(last[0].shape.rank)]
    axes = [tf.broadcast_to(x, shape) for x in grid(shape)]
    return tf.stack([*axes, *last], axis=-1)


def _ring_positions(last: tf.Tensor, places: int) -> tf.Tensor:
    """`(b, places)`: what is in a ring after position `last`, or below 0."""
    last = last[:, None]
    return last - (last - tf.range(places)) % places


def _most_recent(orders, buckets, num_buckets, reach) -> tf.Tensor:
    """`(b, h, rounds, num_buckets, reach)` positions, -1 where there is none.

    A bucket's tokens lie side by side in the sorted order, the most recent
    one last.
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
    there = back < counts[:, :num_buckets, None]
    index = tf.maximum(ends - 1 - back, 0)
    found = tf.gather(tf.reshape(orders, [rows, length]), index, batch_dims=1)
    shape = [size(orders, 0), orders.shape[1], orders.shape[2]]
    return tf.reshape(tf.where(there, found, -1), [*shape, num_buckets, reach])


def _inserted(orders, rank, position) -> tf.Tensor:
    """Orders with a position at a rank; those from there on move up."""
    places = tf.range(size(orders, 3))
    moved = tf.concat([orders[..., :1], orders[..., :-1]], axis=-1)
    later = tf.where(places == rank, position, moved)
    return tf.where(places < rank, orders, later)


def _ranks_around(rank, length, window, wrap, capacity) -> tf.Tensor:
    """Ranks that a token sees: `(b, h, rounds, n)`, -1 for none.

    Args:
        rank: int32 `(b, h, rounds)`, its own in each round.
        length: int32 `(b,)`, tokens of the sequence.
        window: which chunks it sees.
        wrap: bool. With it, ranks go on from round to round, `capacity`
            apart.
        capacity: Length of a round.
    """
    length = length[:, None, None, None]
    chunks = ceil_div(length, window.chunk_length)
    rounds = tf.range(rank.shape[2])[:, None]
    chunk = rank[..., None] // window.chunk_length + tf.constant(
        list(window.offsets)
    )
    inside = (chunk >= 0) & (chunk < chunks)
    if wrap:
        circle = (rounds * chunks + chunk) % (rank.shape[2] * chunks)
        rounds, chunk = circle // chunks, circle % chunks
        inside = tf.ones_like(inside)
    ranks = chunk[..., None] * window.chunk_length + tf.range(
        window.chunk_length
    )
    inside = inside[..., None] & (ranks < length[..., None])
    found = tf.where(inside, rounds[..., None] * capacity + ranks, -1)
    shape = [size(rank, 0), rank.shape[1], rank.shape[2], -1]
    return tf.reshape(found, shape)


def _take_ranks(orders, ranks) -> tf.Tensor:
    """Positions at ranks of the rounds one after the other."""
    shape = [size(orders, 0), orders.shape[1], -1]
    flat = tf.reshape(orders, shape)
    index = tf.reshape(ranks, shape)
    found = tf.gather(flat, tf.maximum(index, 0), batch_dims=2)
    return tf.reshape(tf.where(index >= 0, found, -1), tf.shape(ranks))
