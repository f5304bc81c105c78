"""Faults of the published caches that decoding here must not have.

Each test is named after its fault.
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LocalSelfAttention, LSHSelfAttention
from tests.support.stepwise import decode, gap

HEADS, KEY_DIM, DIM, CHUNK, LENGTH = 2, 5, 7, 4, 41
ROWS = np.array([9, 3, 17], "int32")


def lsh(**options):
    options = {"num_buckets": 4, "num_hashes": 2, "seed": 1, **options}
    layer = LSHSelfAttention(
        HEADS, KEY_DIM, chunk_length=CHUNK, causal=True, **options
    )
    layer.build((None, None, DIM))
    return layer


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(ROWS), LENGTH, DIM)).astype("float32")


X = draw()


def test_rows_do_not_decode_from_the_first_rows_cache():
    """Rows of a batch attended to the first row's states."""
    layer = lsh()
    together = decode(layer, X, ROWS)
    for row in range(len(ROWS)):
        alone = decode(layer, X[row : row + 1], ROWS[row : row + 1])
        assert gap(together[row : row + 1], alone) < 1e-5
    others = X.copy()
    others[0] = draw(1)[0]
    assert gap(decode(layer, others, ROWS)[1:], together[1:]) < 1e-5


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_steps_do_not_draw_rotations_of_their_own(scope):
    """Each step drew rotations of its own, which made old buckets void."""
    layer = lsh(scope=scope)
    _, cache = layer.prefill(X[:, :9], np.ones((3, 9), bool), LENGTH)
    steps = [
        layer.decode(X[:, 9:10], cache, np.full(3, 9, "int32"))[0].numpy()
        for _ in range(3)
    ]
    np.testing.assert_array_equal(steps[0], steps[1])
    np.testing.assert_array_equal(steps[0], steps[2])
    rotations = layer.decode_constants()
    given = layer.decode(X[:, 9:10], cache, np.full(3, 9, "int32"), rotations)
    np.testing.assert_array_equal(steps[0], given[0])


@pytest.mark.parametrize("num_hashes", [1, 2])
def test_cached_results_do_not_differ_from_a_full_pass(num_hashes):
    """Cached and full results differed at most lengths."""
    layer = lsh(num_hashes=num_hashes)
    assert gap(decode(layer, X, ROWS), np.asarray(layer(X), "float64")) < 1e-5


def test_a_step_is_not_hashed_as_a_sequence_of_one_token():
    """A step hashed to the buckets of a sequence of one token."""
    layer = lsh(num_buckets=None)
    with pytest.raises(ValueError, match="num_buckets=None"):
        layer.prefill(X[:, :9], np.ones((3, 9), bool), LENGTH)
    layer = lsh(num_buckets=[4, 6])
    _, cache = layer.prefill(X[:, :9], np.ones((3, 9), bool), LENGTH)
    _, after = layer.decode(X[:, 9:10], cache, np.full(3, 9, "int32"))
    changed = np.any(np.asarray(cache.recent) != np.asarray(after.recent), -1)
    hashed = np.asarray(layer.hash(X[:, 9:10]))[..., 0]
    assert (changed.sum(-1) == 1).all()
    np.testing.assert_array_equal(changed.argmax(-1), hashed)


@pytest.mark.parametrize("num_chunks_before", [1, 2, 3])
def test_local_caches_do_not_drop_chunks_of_the_window(num_chunks_before):
    """With several chunks before, a cache dropped some that count."""
    layer = LocalSelfAttention(
        HEADS,
        KEY_DIM,
        chunk_length=CHUNK,
        num_chunks_before=num_chunks_before,
        causal=True,
    )
    expected = tf.cast(layer(X), tf.float64).numpy()
    assert gap(decode(layer, X, ROWS), expected) < 1e-5
