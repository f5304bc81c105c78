"""More rounds bring LSH attention nearer to exact attention."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention import hashing
from keras_reformer.ops.attention.exact import exact_shared_attention
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window

DRAWS, LENGTH, DIM, CHUNK, BUCKETS = 5, 61, 7, 8, (4,)
ROUNDS = [1, 2, 4, 8, 16, 32]


def clustered():
    """The same vectors in all heads: each head has rotations of its own."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(11, DIM))[rng.integers(11, size=LENGTH)]
    vectors = 2 * centres + rng.normal(size=(LENGTH, DIM))
    value = rng.normal(size=(LENGTH, DIM))
    shape = (1, DRAWS, LENGTH, DIM)
    return [tf.constant(np.broadcast_to(x, shape)) for x in (vectors, value)]


@functools.cache
def errors(scope, discount):
    """Relative distances from exact attention, by rounds."""
    query_key, value = clustered()
    rotations = hashing.sample_rotations(
        tf.constant([1, 2]), DRAWS, DIM, ROUNDS[-1], BUCKETS
    )
    buckets = hashing.hash_vectors(query_key, rotations, BUCKETS)
    orders = sort_by_bucket(buckets)
    exact = exact_shared_attention(query_key, value, causal=True)

    @functools.partial(tf.function, autograph=False)
    def distance(orders, buckets):
        output = lsh_attention(
            query_key,
            value,
            orders,
            buckets,
            Window(CHUNK, 1, 0, True, False, scope == "bucket"),
            discount_duplicates=discount,
        )
        return tf.norm(output - exact) / tf.norm(exact)

    return [
        float(distance(orders[:, :, :n], buckets[:, :, :n])) for n in ROUNDS
    ]


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_pairs_that_count_once_lead_to_exact_attention(scope):
    found = errors(scope, discount=True)
    assert all(more < less for less, more in itertools.pairwise(found))
    assert found[-1] < 0.1 * found[0]


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_pairs_that_count_often_lead_elsewhere(scope):
    found = errors(scope, discount=False)
    assert found[-1] > 0.85 * found[-2] > 0.1
    assert found[-1] > 3 * errors(scope, discount=True)[-1]
