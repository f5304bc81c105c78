"""Locality-sensitive hashing by random rotations.

Vectors that point the same way get the same bucket: rotate, then take the
largest of the coordinates and of their negatives (Andoni et al. 2015; Kitaev
et al. 2020, section 2, "LSH attention").
"""

import math

import tensorflow as tf

from keras_reformer.ops.attention.kernel import norms_of
from keras_reformer.ops.random import standard_normal

Buckets = int | tuple[int, ...]

# With more buckets one hash of them all costs more than two small ones.
_LARGEST_SINGLE_FACTOR = 128


def resolve_num_buckets(
    length: int, chunk_length: int, scope: str
) -> tuple[int, ...]:
    """The number of buckets for a length, as factors; a pure function.

    `scope="chunk"` takes the published `2 * length / chunk_length`;
    `scope="bucket"` half of it, so that a bucket is about as large as the
    window in it. Up to 128 buckets are one factor, more are two even ones
    near each other.

    Args:
        length: int. Number of positions hashed.
        chunk_length: int. Number of positions in a chunk.
        scope: `"bucket"` or `"chunk"`.

    Returns:
        Tuple of even ints whose product is the number of buckets.

    Example:

    >>> resolve_num_buckets(4096, 64, "bucket")
    (64,)
    >>> resolve_num_buckets(524288, 64, "chunk")
    (128, 128)
    """
    chunks = -(-length // chunk_length)
    num_buckets = 2 * chunks if scope == "chunk" else chunks
    num_buckets = max(2, num_buckets + num_buckets % 2)
    if num_buckets <= _LARGEST_SINGLE_FACTOR:
        return (num_buckets,)
    first = 2 ** math.ceil(math.log2(math.sqrt(num_buckets)))
    rest = -(-num_buckets // first)
    return (first, rest + rest % 2)


def num_rotation_columns(factors: tuple[int, ...]) -> int:
    """Width of the rotations of one round: half of the factors' sum."""
    return sum(factors) // 2


def sample_rotations(
    seed: tf.Tensor,
    num_heads: int,
    key_dim: int,
    num_hashes: int,
    factors: tuple[int, ...],
    dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Draws standard normal rotations, shared over the batch.

    Rounds are drawn one after the other, so the first rounds of a larger
    number are the rounds of a smaller one.

    Returns:
        Tensor of shape
        `(num_heads, key_dim, num_hashes, sum(factors) // 2)`.
    """
    columns = num_rotation_columns(factors)
    rounds = standard_normal(seed, (num_hashes, num_heads, key_dim, columns))
    return tf.cast(tf.transpose(rounds, (1, 2, 0, 3)), dtype)


def hash_vectors(
    vectors: tf.Tensor,
    rotations: tf.Tensor,
    factors: tuple[int, ...],
    mask: tf.Tensor | None = None,
    center: tf.Tensor | None = None,
) -> tf.Tensor:
    """Bucket ids of vectors, one for every round.

    With a center, `vector / |vector| - center` is hashed. Vectors with a large
    common component would share a few buckets; without it they spread.

    With several factors `f1, f2, ...` a bucket is `h1 + f1 * (h2 + ...)`,
    each `h` the hash by that factor's own columns of the rotations.

    Args:
        vectors: Tensor of shape `(batch, num_heads, length, key_dim)`. Their
            length does not matter, only their direction.
        rotations: Tensor of shape
            `(num_heads, key_dim, num_hashes, sum(factors) // 2)`.
        factors: Tuple of even ints.
        mask: Boolean tensor of shape `(batch, length)`, True at valid
            positions, or None. The others get a bucket of their own, number
            `prod(factors)`, which sorts last.
        center: Tensor of shape `(num_heads, key_dim)`, as of
            `common_direction`, or None.

    Returns:
        int32 tensor of shape `(batch, num_heads, num_hashes, length)`.
    """
    vectors = tf.stop_gradient(tf.cast(vectors, rotations.dtype))
    norms = None if center is None else norms_of(vectors)[..., None]
    rounds = []
    for index in range(rotations.shape[2]):
        rotation = rotations[:, :, index]
        rotated = tf.einsum("bhtd,hdn->bhtn", vectors, rotation)
        if center is not None:
            # Times the norm, which changes no bucket, and after rotating:
            # no second copy of the vectors.
            shift = tf.einsum(
                "hd,hdn->hn", tf.cast(center, rotation.dtype), rotation
            )
            rotated -= norms * shift[:, None, :]
        rounds.append(_bucket_of(rotated, factors))
    buckets = tf.stack(rounds, axis=2)
    if mask is None:
        return buckets
    padding = tf.constant(math.prod(factors), tf.int32)
    return tf.where(mask[:, None, None, :], buckets, padding)


def common_direction(
    vectors: tf.Tensor, mask: tf.Tensor | None, otherwise: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The common component of vectors: the `c` that minimises the sum of
    `|v - |v| c|^2`.

    That is the mean of unit vectors, weighted by `|v|^2`: a long query attends
    sharply and needs its keys in its bucket, a short one attends to all keys
    that it sees.

    Args:
        vectors: Tensor of shape `(batch, num_heads, length, key_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, or None.
        otherwise: Tensor of shape `(num_heads, key_dim)`: the result where
            no position is valid.

    Returns:
        common: tensor of shape `(num_heads, key_dim)`.
        weight: tensor of shape `(num_heads, 1)`: the sum of `|v|^2`. That of
            several parts of a batch weighs their means into the batch's.
    """
    vectors = tf.cast(vectors, otherwise.dtype)
    norms = norms_of(vectors)[..., None]
    if mask is not None:
        valid = tf.cast(mask, "bool")[:, None, :, None]
        vectors = tf.where(valid, vectors, 0.0)
        norms = tf.where(valid, norms, 0.0)
    total = tf.reduce_sum(vectors * norms, axis=(0, 2))
    weight = tf.reduce_sum(norms**2, axis=(0, 2))
    common = total / tf.where(weight > 0, weight, 1.0)
    return tf.where(weight > 0, common, otherwise), weight


def _bucket_of(rotated: tf.Tensor, factors: tuple[int, ...]) -> tf.Tensor:
    bucket, stride = 0, 1
    for factor, part in zip(
        factors,
        tf.split(rotated, [factor // 2 for factor in factors], axis=-1),
        strict=True,
    ):
        bucket += stride * _largest_signed_coordinate(part)
        stride *= factor
    return bucket


def _largest_signed_coordinate(rotated: tf.Tensor) -> tf.Tensor:
    """`argmax([x; -x])` along the last axis, without the concatenation.

    Two plain reductions and a search for the extreme value vectorise where
    an arg max does not. Ties go to the first, as an arg max's do.
    """
    half = rotated.shape[-1]
    largest = tf.reduce_max(rotated, axis=-1, keepdims=True)
    smallest = tf.reduce_min(rotated, axis=-1, keepdims=True)
    positive = largest >= -smallest
    extreme = tf.where(positive, largest, smallest)
    index = tf.reduce_min(
        tf.where(rotated == extreme, tf.range(half), half), axis=-1
    )
    return index + tf.where(positive[..., 0], 0, half)
