"""Dropout of attention weights whose mask all chunks share."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.exact import exact_attention
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.window import Window

BATCH, HEADS, HASHES, CHUNK, LENGTH, RATE = 2, 3, 2, 5, 35, 0.3
SEED = [3, 5]


def make_dropout(shared=True):
    return AttentionDropout(RATE, tf.constant(SEED), shared)


def tokens(dim):
    return tf.zeros((BATCH, HEADS, LENGTH, dim), "float64")


def one_hot():
    """Values of which attention returns its weights."""
    eye = np.eye(LENGTH)
    return tf.constant(np.broadcast_to(eye, (BATCH, HEADS, *eye.shape)))


def local(dropout):
    window = Window(CHUNK, 1, 0, False, True, False)
    zeros = tokens(2)
    weights = local_attention(zeros, zeros, one_hot(), window, dropout=dropout)
    return 2 * CHUNK * weights


def lsh(dropout):
    """Two equal rounds: what they keep is the mean of both."""
    window = Window(CHUNK, 1, 0, False, False, False)
    buckets = tf.zeros((BATCH, HEADS, HASHES, LENGTH), "int32")
    orders = buckets + tf.range(LENGTH)
    weights = lsh_attention(
        tokens(2), one_hot(), orders, buckets, window, dropout=dropout
    )
    return (2 * CHUNK - 1) * weights


def exact(dropout):
    zeros = tokens(2)
    weights = exact_attention(
        zeros,
        zeros,
        one_hot(),
        dropout=dropout,
        query_chunk_length=CHUNK,
    )
    return LENGTH * weights


KINDS = {"local": local, "lsh": lsh, "exact": exact}


def masks(kind, dropout):
    """What each chunk's queries keep: `(batch, heads, chunks, c, keys)`."""
    kept = KINDS[kind](dropout).numpy()
    parts = []
    # The first chunk has none before it.
    for first in range(CHUNK, LENGTH, CHUNK):
        keys = slice(first - CHUNK, first + CHUNK)
        if kind == "exact":
            keys = slice(None)
        parts.append(kept[:, :, first : first + CHUNK, keys])
    return np.stack(parts, axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_one_mask_serves_chunks_heads_rounds_and_examples(kind):
    found = masks(kind, make_dropout())
    first = found[0, 0, 0]
    np.testing.assert_allclose(
        found, np.broadcast_to(first, found.shape), rtol=1e-6
    )
    # Rounds of one mask keep both or neither, and no row is another's.
    values = np.unique(np.round(first, 6))
    np.testing.assert_allclose(values, [0, 1 / (1 - RATE)], rtol=1e-6)
    assert len(np.unique(first > 0, axis=0)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_other_masks_are_not_shared(kind):
    found = masks(kind, make_dropout(shared=False))
    for axis in (0, 1, 2):
        first = found.take([0], axis=axis)
        assert np.mean(found != first) > 0.1


def test_rate_of_a_shared_mask():
    length, before = 61, 1
    rank = tf.range(length)[:, None]
    slot = tf.range((before + 1) * length)
    kept = make_dropout().keep_scale(0, rank, slot, length, tf.float32).numpy()
    np.testing.assert_allclose(np.unique(kept), [0, 1 / (1 - RATE)], rtol=1e-6)
    assert abs(np.mean(kept == 0) - RATE) < 0.02
    for axis in (0, 1):
        share = np.mean(kept == 0, axis=axis)
        assert 0 < share.min() and share.max() < 0.7


def test_seeds_make_other_shared_masks():
    one, other = (
        make_dropout(),
        make_dropout()._replace(seed=tf.constant([3, 6])),
    )
    assert (masks("local", one) != masks("local", other)).any()
