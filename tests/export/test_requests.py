import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import requests

SPECS = {
    "token_ids": tf.TensorSpec((None, None), tf.int32),
    "lengths": tf.TensorSpec((None,), tf.int32),
    "labels": tf.TensorSpec((None, None), tf.int32),
}
GOOD = {
    "token_ids": [[0, 10, 3], [1, 2, 9]],
    "lengths": [3, 1],
    "labels": [[-1, 10, 0], [5, 6, 7]],
}


@pytest.fixture(scope="module")
def check():
    @tf.function(input_signature=[SPECS])
    def check(request):
        return requests.checked(request, vocabulary_size=11, max_length=4)

    def run(**changes):
        values = {**GOOD, **changes}
        return check({k: tf.constant(x, tf.int32) for k, x in values.items()})

    return run


def test_a_good_request_passes_unchanged(check):
    for name, value in check().items():
        np.testing.assert_array_equal(value, GOOD[name])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"token_ids": np.zeros((0, 3))}, "token_ids must not be empty"),
        ({"token_ids": np.zeros((2, 0))}, "token_ids must not be empty"),
        ({"token_ids": np.zeros((2, 5))}, "at most 4 positions"),
        ({"token_ids": [[0, -1, 3], [1, 2, 9]]}, r"token_ids.*\[0 10 -1 9\]"),
        ({"token_ids": [[0, 11, 3], [1, 2, 9]]}, r"token_ids.*\[0 10 0 11\]"),
        ({"lengths": [3]}, "lengths must fit"),
        ({"lengths": [3, 0]}, r"lengths.*\[1 3 0 3\]"),
        ({"lengths": [4, 3]}, r"lengths.*\[1 3 3 4\]"),
        ({"labels": [[0, 0], [0, 0]]}, "labels must fit"),
        ({"labels": [[-2, 0, 0], [0, 0, 0]]}, r"labels.*\[-1 10 -2 0\]"),
        ({"labels": [[11, 0, 0], [0, 0, 0]]}, r"labels.*\[-1 10 0 11\]"),
    ],
)
def test_a_bad_request_is_refused(check, changes, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        check(**changes)


def test_nothing_known_nothing_checked():
    token_ids = tf.constant([[-5, 10**6]])
    checked = requests.checked({"token_ids": token_ids}, None, None)
    np.testing.assert_array_equal(checked["token_ids"], token_ids)


@pytest.mark.parametrize(
    "length, bucket", [(1, 3), (3, 3), (4, 7), (7, 7), (8, 20), (20, 20)]
)
def test_padding_to_the_next_bucket(length, bucket):
    token_ids = tf.random.uniform((2, length), 1, 9, tf.int32)

    def pad(token_ids):
        return requests.padded({"token_ids": token_ids}, (3, 7, 20))

    padded = tf.function(pad)(token_ids)
    assert padded["token_ids"].shape == (2, bucket)
    np.testing.assert_array_equal(padded["token_ids"][:, :length], token_ids)
    assert not np.any(padded["token_ids"][:, length:])
    np.testing.assert_array_equal(padded["lengths"], [length, length])


def test_lengths_of_the_request_are_kept():
    request = {"token_ids": tf.ones((2, 5), tf.int32), "lengths": [5, 2]}
    request["lengths"] = tf.constant(request["lengths"])
    padded = requests.padded(request, (8,))
    np.testing.assert_array_equal(padded["lengths"], [5, 2])


def test_cut():
    answers = {"logits": tf.ones((2, 8, 3))}
    assert requests.cut(answers, 5, True)["logits"].shape == (2, 5, 3)
    assert requests.cut(answers, 5, False)["logits"].shape == (2, 8, 3)
