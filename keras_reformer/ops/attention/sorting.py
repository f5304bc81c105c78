"""Sorting positions by bucket, and moving vectors into sorted order.

A sorted order is a permutation. Its gradient is the inverse permutation, so
both passes only gather; nothing as long as the sequence is scatter-added.
"""

import functools

import tensorflow as tf

from keras_reformer.ops.attention.segments import Segments
from keras_reformer.ops.loops.shapes import size


def sort_by_bucket(
    buckets: tf.Tensor, num_buckets: int | None = None
) -> tf.Tensor:
    """Positions ordered by bucket and, within a bucket, by position.

    Args:
        buckets: int32 tensor of shape `(..., length)`.
        num_buckets: int. Buckets are less than it. Where it is known and one
            int32 holds bucket and position, these are sorted as one number:
            1.5 times as fast under XLA on a CPU.

    Returns:
        int32 tensor of the same shape: the position at each rank.
    """
    length = buckets.shape[-1]
    # Half a million positions in 8,192 buckets would overflow.
    if not length or not num_buckets or num_buckets * length > 2**31:
        return tf.argsort(buckets, axis=-1, stable=True)
    return tf.sort(buckets * length + tf.range(length), axis=-1) % length


def sort_segments_by_bucket(
    buckets: tf.Tensor, segments: Segments, num_buckets: int | None = None
) -> tf.Tensor:
    """`sort_by_bucket` of each packed document, which stays where it is.

    The segment is the first part of the key: `num_buckets` numbers for each
    position of the documents before, then bucket and position in the
    document. So a key is less than `num_buckets * length`, as without
    segments, and which document a rank is in is known before sorting.

    Args:
        buckets: int32 tensor of shape `(batch, num_heads, length)`.
        segments: the documents of each row.
        num_buckets: int, as for `sort_by_bucket`.

    Returns:
        int32 tensor of the same shape: the position at each rank.
    """
    length = buckets.shape[-1]
    first, end = segments.first[:, None], segments.end[:, None]
    if not length or not num_buckets or num_buckets * length > 2**31:
        by_bucket = tf.argsort(buckets, axis=-1, stable=True)
        firsts = tf.broadcast_to(first, tf.shape(buckets))
        firsts = tf.gather(firsts, by_bucket, batch_dims=2)
        by_segment = tf.argsort(firsts, axis=-1, stable=True)
        return tf.gather(by_bucket, by_segment, batch_dims=2)
    before, extent = num_buckets * first, end - first
    keys = before + buckets * extent + segments.positions[:, None]
    return first + (tf.sort(keys, axis=-1) - before) % extent


def sort_rounds(
    buckets: tf.Tensor,
    num_buckets: int | None = None,
    segments: Segments | None = None,
) -> tf.Tensor:
    """Sorts every round of hashing by bucket.

    One sort a round: XLA runs a sort on one core of a CPU, and several on
    several.

    Args:
        buckets: int32 tensor of shape `(batch, num_heads, num_hashes,
            length)`.
        num_buckets: int, as for `sort_by_bucket`.
        segments: the packed documents of each row, or None.

    Returns:
        int32 tensor of the same shape: each round's order.
    """
    rounds = tf.unstack(buckets, axis=2)
    if segments is not None:
        sort = functools.partial(
            sort_segments_by_bucket, segments=segments, num_buckets=num_buckets
        )
        return tf.stack([sort(x) for x in rounds], axis=2)
    return tf.stack([sort_by_bucket(x, num_buckets) for x in rounds], axis=2)


def compact(x: tf.Tensor, below: int | None) -> tf.Tensor:
    """int32 numbers of `[0, below)` in half the bytes, where they fit.

    For saved decisions, which are all that a reversible block keeps of a
    sequence between the passes.
    """
    return tf.cast(x, tf.int16) if below and below <= 2**15 else x


def invert_permutation(order: tf.Tensor) -> tf.Tensor:
    """The rank of every position: a scatter of iota, cheaper than a sort.

    Args:
        order: int32 tensor of shape `(rows, length)`, each row a permutation.

    Returns:
        int32 tensor of the same shape, `ranks[i, order[i, j]] == j`.
    """
    rows, length = size(order, 0), size(order, 1)
    flat = order + length * tf.range(rows)[:, None]
    ranks = tf.broadcast_to(tf.range(length), tf.shape(order))
    scattered = tf.scatter_nd(
        tf.reshape(flat, (-1, 1)), tf.reshape(ranks, (-1,)), [rows * length]
    )
    return tf.reshape(scattered, tf.shape(order))


def take(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Rows of `x` by position, each batch row by its own index.

    Args:
        x: Tensor of shape `(rows, length, ...)`.
        index: int32 tensor of shape `(rows, ...)`.

    Returns:
        Tensor of `index`'s shape followed by `x.shape[2:]`.
    """
    rows, length = size(x, 0), size(x, 1)
    first = length * tf.range(rows)
    first = tf.reshape(first, [-1] + [1] * (index.shape.rank - 1))
    return tf.gather(flatten_rows(x), index + first)


def flatten_rows(x: tf.Tensor) -> tf.Tensor:
    """`(rows, length, ...)` to `(rows * length, ...)`."""
    rest = [size(x, axis) for axis in range(2, x.shape.rank)]
    return tf.reshape(x, [size(x, 0) * size(x, 1), *rest])
