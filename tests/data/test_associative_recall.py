import numpy as np
import pytest

from keras_reformer.data import associative_recall_batch


def batch(fillers="zero", seed=0):
    rng = np.random.default_rng(seed)
    return associative_recall_batch(rng, 5, 61, 7, 22, fillers)


@pytest.mark.parametrize("fillers", ["zero", "random"])
def test_every_key_is_asked_once_and_answered_with_its_value(fillers):
    tokens, labels, weights = batch(fillers)
    for row in range(5):
        keys, values = tokens[row, 0:14:2], tokens[row, 1:14:2]
        queries = np.flatnonzero(weights[row])
        asked = tokens[row, queries]
        assert queries.min() >= 14
        assert sorted(asked) == sorted(set(keys))
        answers = dict(zip(keys, values, strict=True))
        assert [answers[key] for key in asked] == list(labels[row, queries])
        assert set(keys) <= set(range(1, 12))
        assert set(values) <= set(range(12, 23))


def test_keys_and_values_are_random():
    tokens, _, _ = batch()
    for first in (0, 1):
        chosen = tokens[:, first:14:2]
        assert len({tuple(row) for row in chosen}) == 5
        assert len(set(chosen.ravel())) == 11


def test_queries_come_in_an_order_and_at_places_of_their_own():
    tokens, _, weights = batch()
    orders = [
        tuple(np.argsort(tokens[row, np.flatnonzero(weights[row])]))
        for row in range(5)
    ]
    assert len(set(orders)) == 5
    assert len({tuple(row) for row in weights}) == 5


def test_zeros_fill_what_is_left():
    tokens, labels, weights = batch("zero")
    rest = weights[:, 14:] == 0
    assert (tokens[:, 14:][rest] == 0).all()
    assert (labels[weights == 0] == 0).all()


def test_random_fillers_are_no_key_of_their_sequence():
    tokens, _, weights = batch("random")
    for row in range(5):
        fillers = tokens[row, 14:][weights[row, 14:] == 0]
        assert not set(fillers) & set(tokens[row, 0:14:2])
        assert fillers.min() > 0
        assert len(set(fillers)) > 5


def test_all_keys_can_be_in_use():
    rng = np.random.default_rng(0)
    tokens, _, _ = associative_recall_batch(rng, 2, 12, 4, 8, "random")
    assert sorted(tokens[0, 0:8:2]) == [1, 2, 3, 4]


def test_equal_generators_make_equal_batches():
    for one, two in zip(batch(seed=3), batch(seed=3), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (batch(seed=3)[0] != batch(seed=4)[0]).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 20},
        {"pairs": 12},
        {"pairs": 0},
        {"vocabulary": 23},
        {"fillers": "none"},
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    ((name, value),) = wrong.items()
    sizes = {"length": 61, "pairs": 7, "vocabulary": 22, **wrong}
    with pytest.raises(ValueError, match=f"Received: .*{name}={value!r}"):
        associative_recall_batch(np.random.default_rng(0), 2, **sizes)
