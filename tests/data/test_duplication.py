import numpy as np
import pytest

from keras_reformer.data import duplication_batch


def test_the_second_w_equals_the_first_and_counts():
    rng = np.random.default_rng(0)
    tokens, labels, weights = duplication_batch(rng, 50, 22, 7)
    np.testing.assert_array_equal(tokens[:, :11], tokens[:, 11:])
    assert (tokens[:, 0] == 0).all()
    assert set(tokens[:, 1:11].ravel()) == set(range(1, 8))
    np.testing.assert_array_equal(labels[:, :-1], tokens[:, 1:])
    counted = labels[weights == 1].reshape(50, 10)
    np.testing.assert_array_equal(counted, tokens[:, 1:11])
    assert weights.sum() == 500


@pytest.mark.parametrize("length", [2, 21])
def test_other_lengths_are_refused(length):
    with pytest.raises(ValueError, match=f"length={length}"):
        duplication_batch(np.random.default_rng(0), 1, length, 7)


def test_a_string_needs_a_symbol():
    with pytest.raises(ValueError, match="symbols=0"):
        duplication_batch(np.random.default_rng(0), 1, 8, 0)
