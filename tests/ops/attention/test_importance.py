"""Weights over the probability that hash rounds show a pair."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention import hashing
from keras_reformer.ops.attention.duplicates import attention_of_rows
from keras_reformer.ops.attention.exact import exact_shared_attention
from keras_reformer.ops.attention.importance import (
    Importance,
    fit_probability,
    same_bucket_probability,
)
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window
from tests.support import reference, reference_importance

BATCH, HEADS, HASHES, CHUNK = 2, 3, 3, 4
KEY_DIM, VALUE_DIM = 5, 7
FACTORS = (4, 2)
SCOPES = {"bucket": ("bucket", False), "chunk": ("chunk", False)}
SCOPES["wrap"] = ("chunk", True)


# --- Probabilities ---


@pytest.mark.parametrize("cosine", [-0.9, -0.3, 0.0, 0.5, 0.9, 0.99])
def test_two_buckets_are_split_by_a_plane(cosine):
    found = same_bucket_probability(cosine, (2,))
    expected = 1 - math.acos(cosine) / math.pi
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("factors", [(6,), (4, 6), (32,)])
@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.6, 0.95])
def test_hashing_puts_as_many_pairs_together(factors, cosine):
    rounds = 40_000
    pair = np.array([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]])
    vectors = np.broadcast_to(pair, (1, rounds, 2, 2))
    columns = hashing.num_rotation_columns(factors)
    rotations = np.random.default_rng(0).normal(size=(rounds, 2, 1, columns))
    buckets = hashing.hash_vectors(vectors, rotations, factors)[0, :, 0]
    found = np.mean(buckets[:, 0] == buckets[:, 1])
    expected = same_bucket_probability(cosine, factors)
    deviation = math.sqrt(expected * (1 - expected) / rounds)
    assert abs(found - expected) < 4 * deviation + 2e-4


@pytest.mark.parametrize("factors", [(2,), (16,), (128,), (32, 32)])
@pytest.mark.covering(1)
@pytest.mark.parametrize("num_hashes", [1, 2, 4, 8, 64])
def test_the_polynomial_is_near(factors, num_hashes):
    coefficients = fit_probability(factors, num_hashes)
    assert len(coefficients) <= 9
    for cosine in np.linspace(0, 0.99, 34):
        once = same_bucket_probability(cosine, factors)
        expected = 1 - (1 - once) ** num_hashes
        found = np.polyval(coefficients[::-1], cosine)
        tolerance = 0.1 if num_hashes == 1 else 0.02
        np.testing.assert_allclose(found, expected, rtol=tolerance)
    everywhere = np.polyval(coefficients[::-1], np.linspace(0, 1, 999))
    assert everywhere.min() > 0


def test_each_pair_counts_once_in_expectation():
    draws, factors = 20_000, (8,)
    vectors = np.random.default_rng(1).normal(size=(4, 6)) + 0.8
    together = np.broadcast_to(vectors, (1, draws, *vectors.shape))
    rotations = hashing.sample_rotations(
        tf.constant([1, 2]), draws, 6, HASHES, factors
    )
    buckets = hashing.hash_vectors(together, rotations, factors).numpy()[0]
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scores = vectors @ (vectors / norms).T
    probability = Importance.of(factors, HASHES).probability(scores, 1 / norms)
    for a, b in itertools.combinations(range(4), 2):
        assert scores[a, b] > 0
        shown = np.any(buckets[:, :, a] == buckets[:, :, b], axis=1)
        counted = shown / probability[a, b].numpy()
        deviation = counted.std() / math.sqrt(draws)
        assert abs(counted.mean() - 1) < 4 * deviation + 0.02


# --- Attention ---


def make_case(length, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    query_key = rng.normal(size=(BATCH, HEADS, length, KEY_DIM))
    value = rng.normal(size=(BATCH, HEADS, length, VALUE_DIM))
    shape = (BATCH, HEADS, HASHES, length)
    buckets = rng.integers(math.prod(FACTORS), size=shape)
    mask = None
    if masked:
        mask = rng.random((BATCH, length)) < 0.7
        buckets = np.where(mask[:, None, None], buckets, math.prod(FACTORS))
    return query_key, value, buckets.astype("int32"), mask


def sorted_by(buckets):
    return {"orders": sort_by_bucket(buckets), "buckets": tf.constant(buckets)}


def window_of(scope, causal, before=1, after=0):
    return Window(CHUNK, before, after, causal, False, scope == "bucket")


@pytest.mark.covering(2)
@pytest.mark.parametrize("length", [1, 3, 4, 5, 13, 23])
@pytest.mark.parametrize("kind", SCOPES)
@pytest.mark.parametrize("masked", [True, False])
def test_equals_the_reference(length, kind, masked):
    query_key, value, buckets, mask = make_case(length, masked)
    (scope, wrap), causal = SCOPES[kind], length % 2 == 1
    expected = reference.lsh_attention(
        query_key,
        value,
        buckets,
        chunk_length=CHUNK,
        causal=causal,
        scope=scope,
        wrap=wrap,
        mask=mask,
        probability=reference_importance.probability(
            FACTORS, HASHES, scope, CHUNK, reach=1
        ),
    )
    output = lsh_attention(
        tf.constant(query_key),
        tf.constant(value),
        **sorted_by(buckets),
        window=window_of(scope, causal),
        mask=None if mask is None else tf.constant(mask),
        wrap=wrap,
        importance=Importance.of(FACTORS, HASHES),
    )
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize("kind", SCOPES)
@pytest.mark.parametrize("masked", [True, False])
def test_gradient_takes_probabilities_as_constants(kind, masked):
    query_key, value, buckets, mask = make_case(23, masked)
    scope, wrap = SCOPES[kind]
    upstream = np.random.default_rng(3).normal(size=value.shape)
    options = {
        "window": window_of(scope, False, 1, 1),
        "mask": None if mask is None else tf.constant(mask),
        "wrap": wrap,
        "importance": Importance.of(FACTORS, HASHES),
        **sorted_by(buckets),
    }

    def dense(query_key, value):
        weights = attention_of_rows(query_key, rows=tf.range(23), **options)
        return tf.matmul(weights, value)

    def windowed(query_key, value):
        return lsh_attention(query_key, value, **options)

    arguments = [tf.constant(query_key), tf.constant(value)]
    outputs, gradients = [], []
    for function in (dense, windowed):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            output = function(*arguments)
            loss = tf.reduce_sum(upstream * output)
        outputs.append(output)
        gradients.append(tape.gradient(loss, arguments))
    np.testing.assert_allclose(*outputs, atol=1e-12)
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["bucket", "chunk"])
def test_padding_changes_nothing(kind):
    query_key, value, buckets, _ = make_case(13)
    scope, _ = SCOPES[kind]

    def attend(spare):
        widths = [(0, 0), (0, 0), (0, spare), (0, 0)]
        padded = [np.pad(x, widths) for x in (query_key, value)]
        behind = np.pad(buckets, widths[:1] * 3 + [(0, spare)], "maximum")
        behind[..., 13:] = math.prod(FACTORS)
        mask = np.broadcast_to(np.arange(13 + spare) < 13, (BATCH, 13 + spare))
        return lsh_attention(
            *map(tf.constant, padded),
            **sorted_by(behind),
            window=window_of(scope, True),
            mask=tf.constant(mask),
            importance=Importance.of(FACTORS, HASHES),
        )

    np.testing.assert_allclose(attend(9)[:, :, :13], attend(0), atol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_all_dtypes_and_zero_vectors_are_finite(dtype, scope):
    query_key, value, buckets, mask = make_case(23, masked=True)
    query_key[:, :, ::5] = 0
    arguments = [tf.cast(x, dtype) for x in (query_key, value)]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        output = lsh_attention(
            *arguments,
            **sorted_by(buckets),
            window=window_of(scope, True),
            mask=tf.constant(mask),
            importance=Importance.of(FACTORS, HASHES),
        )
    for x in (output, *tape.gradient(output, arguments)):
        assert np.isfinite(tf.cast(x, "float32")).all()


def clustered(length, dim, cluster, rng):
    centres = np.repeat(rng.normal(size=(length // cluster, dim)), cluster, 0)
    return rng.permutation(centres) + 0.5 * rng.normal(size=(length, dim))


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
@pytest.mark.parametrize("num_hashes", [4, 8])
def test_nearer_to_exact_attention_than_discounting(scope, num_hashes):
    draws, length, dim, chunk = 4, 1024, 64, 64
    rng = np.random.default_rng(0)
    query_key = clustered(length, dim, 32, rng)
    value = query_key @ rng.normal(size=(dim, 5))
    query_key, value = (
        tf.constant(np.broadcast_to(x, (1, draws, *x.shape)))
        for x in (query_key, value)
    )
    factors = hashing.resolve_num_buckets(length, chunk, scope)
    rotations = hashing.sample_rotations(
        tf.constant([1, 2]), draws, dim, num_hashes, factors
    )
    buckets = hashing.hash_vectors(query_key, rotations, factors)
    exact = exact_shared_attention(query_key, value, causal=True)

    def error(**options):
        window = Window(chunk, 1, 0, True, False, scope == "bucket")
        output = lsh_attention(
            query_key, value, **sorted_by(buckets), window=window, **options
        )
        return tf.reduce_mean(tf.norm(output - exact, axis=-1))

    discounted = error(discount_duplicates=True)
    found = error(importance=Importance.of(factors, num_hashes))
    assert float(found / discounted) < 0.9
