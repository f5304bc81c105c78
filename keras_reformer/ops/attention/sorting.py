"""Sorting positions by bucket, and moving vectors into sorted order.

A sorted order is a permutation. Its gradient is the inverse permutation, so
both passes only gather; nothing as long as the sequence is scatter-added.
"""

import tensorflow as tf

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


def sort_rounds(
    buckets: tf.Tensor, num_buckets: int | None = None
) -> tf.Tensor:
    """Sorts every round of hashing by bucket.

    One sort a round: XLA runs a sort on one core of a CPU, and several on
    several.

    Args:
        buckets: int32 tensor of shape `(batch, num_heads, num_hashes,
            length)`.
        num_buckets: int, as for `sort_by_bucket`.

    Returns:
        int32 tensor of the same shape: each round's order.
    """
    rounds = tf.unstack(buckets, axis=2)
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
