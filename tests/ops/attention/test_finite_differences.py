"""Every op's gradient with all its options at once, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops import losses
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.exact import (
    exact_attention,
    exact_shared_attention,
)
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.positions import axial_positions, rotate
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.chunking import map_positions
from keras_reformer.ops.dropout import dropout
from keras_reformer.ops.loops import tiling
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.losses import chunked_cross_entropy
from tests.support.finite_differences import check_finite_differences

BATCH, HEADS, KEY_DIM, VALUE_DIM, LENGTH, HASHES, BUCKETS = 2, 3, 5, 7, 19, 3, 4
CHUNK = 4
VOCABULARY = 11
SEED = (3, 5)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Loops turn several times, and the last turn is not full."""
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", 12)
    monkeypatch.setattr(losses, "LOGITS_IN_STEP", 2 * 3 * VOCABULARY)


def normal(rng, *shape):
    return tf.constant(rng.normal(size=shape))


def mask_of(rng, length=LENGTH):
    mask = rng.random((BATCH, length)) < 0.8
    mask[:, 0] = True
    return tf.constant(mask)


def bias_of(values, query, key, heads):
    """No symmetry between queries and keys."""
    table, slope = values
    cell = heads * 6 + (2 * query + key) % 6
    wave = tf.sin(tf.cast(key - 2 * query, tf.float64) * 0.3)
    return tf.gather(tf.reshape(table, [-1]), cell) + slope * wave


def make_bias(values):
    return PositionBias(bias_of, values, HEADS)


def bias_values(rng):
    return [normal(rng, HEADS, 6), normal(rng)]


def check(function, arguments, rng):
    @tf.function(autograph=False)
    def loss(arguments):
        output = function(arguments)
        # Weighed apart, so that no two errors can cancel.
        weights = np.random.default_rng(1).normal(size=output.shape)
        return tf.reduce_sum(weights * output)

    check_finite_differences(loss, arguments, rng)


def vectors(rng, *dims, length=LENGTH):
    return [normal(rng, BATCH, HEADS, length, dim) for dim in dims]


# --- Attention ---


@pytest.mark.covering(1)
@pytest.mark.parametrize("reach, causal", [((2, 0), True), ((1, 2), False)])
@pytest.mark.parametrize("kind", ["bucket", "chunk", "wrap"])
def test_lsh_attention(kind, reach, causal):
    rng = np.random.default_rng(0)
    mask = mask_of(rng)
    buckets = rng.integers(BUCKETS, size=(BATCH, HEADS, HASHES, LENGTH))
    buckets = tf.where(mask[:, None, None], buckets, BUCKETS)
    buckets = tf.cast(buckets, tf.int32)
    window = Window(CHUNK, *reach, causal, False, kind == "bucket")

    def attend(arguments):
        query_key, value, *values = arguments
        return lsh_attention(
            query_key,
            value,
            sort_by_bucket(buckets),
            buckets,
            window,
            mask=mask,
            wrap=kind == "wrap",
            discount_duplicates=True,
            dropout=AttentionDropout(0.3, tf.constant(SEED), shared=False),
            bias=make_bias(values),
        )

    arguments = vectors(rng, KEY_DIM, VALUE_DIM) + bias_values(rng)
    check(attend, arguments, rng)


@pytest.mark.covering(1)
@pytest.mark.parametrize("reach, causal", [((2, 0), True), ((1, 2), False)])
@pytest.mark.parametrize("wrap", [True, False])
def test_local_attention(wrap, reach, causal):
    rng = np.random.default_rng(0)
    mask = mask_of(rng)

    def attend(arguments):
        query, key, value, *values = arguments
        return local_attention(
            query,
            key,
            value,
            Window(CHUNK, *reach, causal, True, False),
            mask=mask,
            wrap=wrap,
            dropout=AttentionDropout(0.3, tf.constant(SEED), shared=True),
            bias=make_bias(values),
        )

    arguments = vectors(rng, KEY_DIM, KEY_DIM, VALUE_DIM) + bias_values(rng)
    check(attend, arguments, rng)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_exact_attention(shared, causal):
    rng = np.random.default_rng(0)
    keys = LENGTH if shared else 13
    mask, query_mask = mask_of(rng, keys), mask_of(rng)
    options = {
        "causal": causal,
        "mask": mask,
        "attention_mask": tf.constant(rng.random((BATCH, LENGTH, keys)) < 0.7),
        "dropout": AttentionDropout(0.3, tf.constant(SEED)),
        "query_chunk_length": 5,
    }

    def attend(arguments):
        query, key, value, matrix, *values = arguments
        biases = {"attention_bias": matrix, "bias": make_bias(values)}
        if shared:
            return exact_shared_attention(query, value, **options, **biases)
        return exact_attention(
            query, key, value, query_mask=query_mask, **options, **biases
        )

    arguments = [
        *vectors(rng, KEY_DIM),
        *vectors(rng, KEY_DIM, VALUE_DIM, length=keys),
        normal(rng, 1, HEADS, LENGTH, keys),
        *bias_values(rng),
    ]
    check(attend, arguments, rng)


# --- Positions alone, and chunks of them ---


def test_chunked_cross_entropy():
    rng = np.random.default_rng(0)
    labels = tf.constant(rng.integers(VOCABULARY, size=(BATCH, LENGTH)))

    def both(arguments):
        hidden, *weights = arguments
        smoothed, nats, _ = chunked_cross_entropy(
            lambda x, weights: x @ weights[0] + weights[1],
            hidden,
            weights,
            labels,
            VOCABULARY,
            label_smoothing=0.2,
        )
        return tf.stack([smoothed, nats])

    arguments = [
        normal(rng, BATCH, LENGTH, KEY_DIM),
        normal(rng, KEY_DIM, VOCABULARY),
        normal(rng, VOCABULARY),
    ]
    check(both, arguments, rng)


def test_map_positions():
    """With dropout inside, whose draws follow the position."""
    rng = np.random.default_rng(0)

    def step(chunk, first, weights):
        wide = tf.tanh(chunk @ weights[0] + weights[1])
        return dropout(wide, 0.3, tf.constant(SEED), first_position=first)

    def mapped(arguments):
        inputs, *weights = arguments
        output = ArraySpec([VALUE_DIM], tf.float64)
        return map_positions(step, inputs, weights, 4, output)

    arguments = [
        normal(rng, BATCH, LENGTH, KEY_DIM),
        normal(rng, KEY_DIM, VALUE_DIM),
        normal(rng, VALUE_DIM),
    ]
    check(mapped, arguments, rng)


@pytest.mark.parametrize("shared_axes", [(), (1,), (0, -1)])
def test_dropout(shared_axes):
    rng = np.random.default_rng(0)
    check(
        lambda x: dropout(x[0], 0.4, tf.constant(SEED), shared_axes, 3),
        [normal(rng, BATCH, LENGTH, KEY_DIM)],
        rng,
    )


@pytest.mark.parametrize("start_index", [0, 4])
def test_axial_positions(start_index):
    rng = np.random.default_rng(0)
    tables = [normal(rng, *shape) for shape in ((5, 2), (3, 3), (2, 7))]
    check(lambda x: axial_positions(x, LENGTH, start_index), tables, rng)


def test_rotate():
    rng = np.random.default_rng(0)
    check(
        lambda x: rotate(x[0], 100.0, start_index=17),
        [normal(rng, BATCH, HEADS, LENGTH, 6)],
        rng,
    )
