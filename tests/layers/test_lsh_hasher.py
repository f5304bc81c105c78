"""`LSHHasher` by itself: buckets, sorted orders and rotations."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_reformer.layers.lsh_hasher import LSHHasher
from keras_reformer.ops.attention.hashing import sample_rotations
from keras_reformer.ops.reversible.recompute import SavedDecisions
from tests.support import reference

HEADS, KEY_DIM, ROUNDS, LENGTH = 2, 5, 3, 17
SEED = np.array([5, 7], "int32")
MASK = np.arange(LENGTH) < np.array([[LENGTH], [11]])


def make_hasher(**options):
    options = {"num_hashes": ROUNDS, "num_buckets": [4, 2], **options}
    return LSHHasher(
        HEADS, KEY_DIM, chunk_length=4, **{"scope": "bucket", **options}
    )


def make_query_key(seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, HEADS, LENGTH, KEY_DIM)
    return rng.normal(size=shape).astype("float32")


def make_rotations(rounds=ROUNDS, columns=3):
    rng = np.random.default_rng(1)
    shape = (HEADS, KEY_DIM, rounds, columns)
    return rng.normal(size=shape).astype("float32")


@pytest.mark.parametrize("mask", [None, MASK], ids=["all valid", "masked"])
def test_buckets_are_those_of_the_equations(mask):
    rotations = make_rotations()
    found = make_hasher().hash(
        make_query_key(), mask, seed=SEED, rotations=rotations
    )
    expected = reference.hash_vectors(make_query_key(), rotations, (4, 2), mask)
    np.testing.assert_array_equal(found, expected)


def test_rotations_are_drawn_from_the_seed():
    hasher, x = make_hasher(), make_query_key()
    drawn = sample_rotations(SEED, HEADS, KEY_DIM, ROUNDS, (4, 2))
    np.testing.assert_array_equal(hasher.rotations((4, 2), SEED), drawn)
    found = hasher.hash(x, seed=SEED)
    expected = hasher.hash(x, seed=None, rotations=drawn)
    np.testing.assert_array_equal(found, expected)


def test_more_rotations_than_rounds_are_left_out():
    given = make_rotations(rounds=7)
    found = make_hasher().rotations((4, 2), None, given)
    np.testing.assert_array_equal(found, given[:, :, :ROUNDS])
    with pytest.raises(ValueError, match=r"Received: rotations.shape=\("):
        make_hasher(num_hashes=8).rotations((4, 2), None, given)


def test_center_is_subtracted_from_directions():
    x, rotations = make_query_key(), make_rotations()
    center = np.random.default_rng(2).normal(size=(HEADS, KEY_DIM)) / 3
    center = center.astype("float32")
    options = {"seed": None, "rotations": rotations, "center": center}
    directions = x / np.linalg.norm(x, axis=-1, keepdims=True)
    expected = reference.hash_vectors(
        directions - center[:, None], rotations, (4, 2)
    )
    found = make_hasher().hash(x, **options)
    np.testing.assert_array_equal(found, expected)


def test_center_moves_a_twentieth_of_the_way():
    x = np.full((1, HEADS, LENGTH, KEY_DIM), 0.5, "float32")
    direction = np.full((HEADS, KEY_DIM), KEY_DIM**-0.5)
    center = keras.ops.zeros((HEADS, KEY_DIM))
    found, weight = make_hasher().updated_center(x, None, center)
    np.testing.assert_allclose(found, 0.05 * direction, rtol=1e-5)
    squares = np.full((HEADS, 1), LENGTH * KEY_DIM / 4)
    np.testing.assert_allclose(weight, squares, rtol=1e-5)


def test_orders_sort_tokens_by_bucket_and_position():
    orders, buckets = make_hasher().sort(make_query_key(), MASK, seed=SEED)
    assert tuple(orders.shape) == (2, HEADS, ROUNDS, LENGTH)
    expected = np.argsort(buckets, axis=-1, kind="stable")
    np.testing.assert_array_equal(orders, expected)


def test_the_backward_pass_reuses_the_order():
    """Whatever rounding did to the query-keys in between."""
    hasher, saved = make_hasher(), SavedDecisions()
    with saved.record():
        first = hasher.sort_once(make_query_key(), MASK, seed=SEED)
    with saved.replay():
        again = hasher.sort_once(make_query_key(9), MASK, seed=SEED)
    expected = hasher.sort(make_query_key(), MASK, seed=SEED)
    for sort in (first, again):
        for one, other in zip(sort, expected, strict=True):
            assert one.dtype == other.dtype == "int32"
            np.testing.assert_array_equal(one, other)
    # In half the bytes in between.
    assert {x.dtype.name for x in saved.values[0]} == {"int16"}


@pytest.mark.parametrize(
    "scope, length, factors",
    [("bucket", 17, (6,)), ("chunk", 17, (10,)), ("bucket", 1, (2,))],
)
def test_number_of_buckets_may_follow_the_length(scope, length, factors):
    hasher = make_hasher(num_buckets=None, scope=scope)
    assert hasher.factors(length) == factors
    with pytest.raises(ValueError, match="num_buckets=None, length=None"):
        hasher.factors(None)
    assert make_hasher(num_buckets=6).factors(None) == (6,)


def test_importance_is_of_all_rounds():
    importance = make_hasher().importance(None)
    assert importance.num_hashes == ROUNDS
    assert importance != make_hasher(num_buckets=2).importance(None)


def test_it_cannot_be_changed_in_place():
    hasher = make_hasher()
    with pytest.raises(dataclasses.FrozenInstanceError):
        hasher.num_hashes = 2


@pytest.mark.parametrize(
    "options, received",
    [
        ({"num_hashes": 0}, "num_hashes=0"),
        ({"num_buckets": 3}, "num_buckets=3"),
    ],
)
def test_refuses_bad_settings(options, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        make_hasher(**options)
