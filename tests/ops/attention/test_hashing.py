import math

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention import hashing
from tests.support import reference

BATCH, HEADS, LENGTH, DIM, ROUNDS = 2, 3, 29, 7, 3


def make_case(factors, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(BATCH, HEADS, LENGTH, DIM))
    rotations = rng.normal(size=(HEADS, DIM, ROUNDS, sum(factors) // 2))
    return vectors, rotations


@pytest.mark.covering(2)
@pytest.mark.parametrize("factors", [(2,), (6,), (4, 6), (2, 4, 6)])
@pytest.mark.parametrize("masked", [True, False])
def test_hash_equals_the_reference(factors, masked, execution):
    vectors, rotations = make_case(factors)
    mask = np.random.default_rng(1).random((BATCH, LENGTH)) < 0.7
    mask = mask if masked else None
    hash_ = execution(
        lambda v, r: hashing.hash_vectors(
            v, r, factors, None if mask is None else tf.constant(mask)
        )
    )
    np.testing.assert_array_equal(
        hash_(tf.constant(vectors), tf.constant(rotations)),
        reference.hash_vectors(vectors, rotations, factors, mask),
    )


def test_hash_ignores_the_length_of_vectors():
    vectors, rotations = make_case((8,))
    scale = np.random.default_rng(2).uniform(0.1, 10, (BATCH, HEADS, LENGTH, 1))
    np.testing.assert_array_equal(
        hashing.hash_vectors(tf.constant(vectors), rotations, (8,)),
        hashing.hash_vectors(tf.constant(vectors * scale), rotations, (8,)),
    )


def test_ties_go_to_the_first_coordinate():
    rotations = np.ones((1, 1, 1, 2))
    vectors = tf.constant([[[[1.0], [-1.0], [0.0]]]], tf.float64)
    buckets = hashing.hash_vectors(vectors, rotations, (4,))
    np.testing.assert_array_equal(buckets, [[[[0, 2, 0]]]])


def test_near_vectors_share_buckets_more_often_than_far_ones():
    rng = np.random.default_rng(3)
    base = rng.normal(size=(1, 1, 500, 16))
    near = base + 0.1 * rng.normal(size=base.shape)
    far = rng.normal(size=base.shape)
    rotations = rng.normal(size=(1, 16, 1, 8))

    def share(other):
        same = hashing.hash_vectors(
            tf.constant(base), rotations, (16,)
        ) == hashing.hash_vectors(tf.constant(other), rotations, (16,))
        return np.mean(same)

    assert share(near) > 0.8
    assert share(far) < 0.2


@pytest.mark.parametrize(
    "length, chunk_length, scope, expected",
    [
        (1, 64, "bucket", (2,)),
        (64, 64, "chunk", (2,)),
        (4096, 64, "bucket", (64,)),
        (4096, 64, "chunk", (128,)),
        (4097, 64, "chunk", (16, 10)),
        (524288, 64, "chunk", (128, 128)),
        (1000, 7, "bucket", (16, 10)),
    ],
)
def test_number_of_buckets(length, chunk_length, scope, expected):
    factors = hashing.resolve_num_buckets(length, chunk_length, scope)
    assert factors == expected


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_factors_are_even_and_enough(scope):
    for length in range(1, 100_000, 997):
        factors = hashing.resolve_num_buckets(length, 64, scope)
        wanted = -(-length // 64) * (2 if scope == "chunk" else 1)
        assert all(factor % 2 == 0 for factor in factors)
        assert math.prod(factors) >= wanted


def test_fewer_rounds_are_the_first_of_more():
    draw = [
        hashing.sample_rotations([1, 2], HEADS, DIM, rounds, (4, 6))
        for rounds in (2, 5)
    ]
    assert draw[0].shape == (HEADS, DIM, 2, 5)
    np.testing.assert_allclose(draw[0], draw[1][:, :, :2], atol=1e-5)


def test_rotations_are_standard_normal_and_follow_the_seed():
    draw = hashing.sample_rotations([1, 2], 8, 64, 4, (64,)).numpy()
    again = hashing.sample_rotations([1, 2], 8, 64, 4, (64,)).numpy()
    other = hashing.sample_rotations([1, 3], 8, 64, 4, (64,)).numpy()
    np.testing.assert_array_equal(draw, again)
    assert abs(np.corrcoef(draw.ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(draw.mean()) < 0.02
    assert abs(draw.std() - 1) < 0.02
