"""The cache of LSH attention with windows of chunks."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.decoding.attention import Step, attend_to_positions
from keras_reformer.ops.decoding.caches.storage import (
    with_capacity,
    write_step,
)
from keras_reformer.ops.loops.shapes import Length, ceil_div, size


class ChunkCache(NamedTuple):
    """Query-keys and values, and the sorted order of each round.

    Attributes:
        key: `(batch, num_heads, capacity, key_dim)`, the query-keys.
        value: `(batch, num_heads, capacity, value_dim)`.
        orders: int32 `(batch, num_heads, num_hashes, capacity)`: at each
            rank, the position there. Ranks after the sequence are void.
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
            wrap: bool. Rounds are one ring of chunks.
        """
        position = step.position[:, None, None, None]
        positions = tf.range(size(self.orders, 3))
        before = (self.buckets <= buckets[..., None]) & (positions < position)
        rank = tf.math.count_nonzero(before, axis=3, dtype=tf.int32)
        orders = _inserted(self.orders, rank[..., None], position)
        ranks = _ranks_around(
            rank, step.position + 1, window, wrap, size(positions, 0)
        )
        visible = _take_ranks(orders, ranks)
        written = write_step(self, step, step.position)
        output = attend_to_positions(step, **written, positions=visible)
        buckets = tf.where(
            positions == position, buckets[..., None], self.buckets
        )
        return output, ChunkCache(**written, orders=orders, buckets=buckets)


def _inserted(orders, rank, position) -> tf.Tensor:
    """Orders with a position at a rank; those from this rank on move up."""
    ranks = tf.range(size(orders, 3))
    moved = tf.concat([orders[..., :1], orders[..., :-1]], axis=-1)
    later = tf.where(ranks == rank, position, moved)
    return tf.where(ranks < rank, orders, later)


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
        in_ring = (rounds * chunks + chunk) % (rank.shape[2] * chunks)
        rounds, chunk = in_ring // chunks, in_ring % chunks
        inside = tf.ones_like(inside)
    ranks = chunk[..., None] * window.chunk_length + tf.range(
        window.chunk_length
    )
    inside = inside[..., None] & (ranks < length[..., None])
    ranks = tf.where(inside, rounds[..., None] * capacity + ranks, -1)
    shape = [size(rank, 0), rank.shape[1], rank.shape[2], -1]
    return tf.reshape(ranks, shape)


def _take_ranks(orders, ranks) -> tf.Tensor:
    """Positions at ranks, which count through the rounds."""
    shape = [size(orders, 0), orders.shape[1], -1]
    flat = tf.reshape(orders, shape)
    index = tf.reshape(ranks, shape)
    taken = tf.gather(flat, tf.maximum(index, 0), batch_dims=2)
    return tf.reshape(tf.where(index >= 0, taken, -1), tf.shape(ranks))
