import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.data import check_token_ids


def dataset_of(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


def test_arrays():
    ids = np.array([[0, 6]], np.uint8)
    assert check_token_ids(ids, 7) is ids
    assert check_token_ids([], 7).shape == (0,)
    with pytest.raises(ValueError, match="Expected ids from 0 to 5"):
        check_token_ids(ids, 6)
    with pytest.raises(ValueError, match="smallest id=-1"):
        check_token_ids(np.array([-1]), 6)
    with pytest.raises(ValueError, match="dtype=float32"):
        check_token_ids(np.array([1.0], np.float32), 6)


def test_tensors_in_every_execution_but_xla():
    # XLA drops assertions, as the docstring says.
    for wrap in (lambda function: function, tf.function):
        check = wrap(lambda ids: check_token_ids(ids, 7))
        np.testing.assert_array_equal(check(tf.constant([0, 6])), [0, 6])
        for bad in (-1, 7):
            with pytest.raises(tf.errors.InvalidArgumentError, match="to 6"):
                check(tf.constant([bad]))


def test_good_dataset_passes_unchanged():
    ids = np.array([[0, 6], [3, 2]], np.int32)
    weights = np.array([[-1.0, 9.0], [0.0, 1.0]], np.float32)
    dataset = dataset_of(ids, weights)
    checked = check_token_ids(dataset, 7)
    assert checked.element_spec == dataset.element_spec
    for row, (got, weight) in enumerate(checked):
        np.testing.assert_array_equal(got, ids[row])
        np.testing.assert_array_equal(weight, weights[row])


def test_single_tensors_and_dictionaries_keep_their_structure():
    dataset = tf.data.Dataset.from_tensor_slices([1, 2])
    assert list(check_token_ids(dataset, 3).as_numpy_iterator()) == [1, 2]
    inputs = {"token_ids": [[1]], "padding_mask": [[True]]}
    dataset = tf.data.Dataset.from_tensor_slices(inputs)
    element = next(iter(check_token_ids(dataset, 3)))
    assert set(element) == {"token_ids", "padding_mask"}


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("bad", [-1, 7, 2**31 - 1])
def test_bad_dataset_stops(position, bad):
    arrays = [np.array([0, 6], np.int32), np.array([1, 2], np.int32)]
    arrays[position][1] = bad
    checked = iter(check_token_ids(dataset_of(*arrays), 7))
    next(checked)
    with pytest.raises(tf.errors.InvalidArgumentError, match="vocabulary"):
        next(checked)


def test_a_vocabulary_that_the_ids_cannot_hold():
    ids = tf.constant([255], tf.uint8)
    np.testing.assert_array_equal(check_token_ids(ids, 32_000), [255])
