import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.vocabulary import known_labels, known_token_ids
from tests.support.executions import EXECUTIONS

SIZE = 7
IDS = np.array([[0, 6, 3], [1, 2, 5]], "int32")
ONES = np.ones(IDS.shape, "float32")
# What is not compiled refuses what is not in the vocabulary.
REFUSALS = {"eager": ValueError, "graph": tf.errors.InvalidArgumentError}


def with_id(token, dtype="int32"):
    """Ids of which one, at [0, 1], is another."""
    ids = IDS.astype(dtype)
    ids[0, 1] = token
    return ids


def without_weight():
    """Weights that are zero at [0, 1]."""
    weights = ONES.copy()
    weights[0, 1] = 0
    return weights


def token_ids(ids, mask=None):
    return known_token_ids(ids, mask, SIZE)


def labels(labels, weights):
    return known_labels(labels, weights, SIZE)


def run(how, function, *arguments):
    return EXECUTIONS[how](function)(*map(tf.constant, arguments))


@pytest.mark.parametrize("how", EXECUTIONS)
@pytest.mark.parametrize("bad", [-1, SIZE, 1000])
def test_unknown_tokens_are_refused_or_zero(how, bad):
    if how in REFUSALS:
        with pytest.raises(REFUSALS[how], match=r"lie in \[0, 7\)"):
            run(how, token_ids, with_id(bad))
    else:
        found = run(how, token_ids, with_id(bad))
        np.testing.assert_array_equal(found, with_id(0))


@pytest.mark.parametrize("how", EXECUTIONS)
@pytest.mark.parametrize("bad", [-1, SIZE])
def test_masked_tokens_may_be_anything(how, bad):
    found = run(how, token_ids, with_id(bad), without_weight() > 0)
    np.testing.assert_array_equal(found, with_id(0))


@pytest.mark.parametrize("how", EXECUTIONS)
@pytest.mark.parametrize("bad", [-1, -100])
def test_negative_labels_have_no_weight(how, bad):
    found, weights = run(how, labels, with_id(bad), 2 * ONES)
    np.testing.assert_array_equal(found, with_id(0))
    np.testing.assert_array_equal(weights, 2 * without_weight())


@pytest.mark.parametrize("how", EXECUTIONS)
def test_greater_labels_are_refused_or_have_no_weight(how):
    if how in REFUSALS:
        with pytest.raises(REFUSALS[how], match="less than 7"):
            run(how, labels, with_id(SIZE), ONES)
    else:
        found, weights = run(how, labels, with_id(SIZE), ONES)
        np.testing.assert_array_equal(found, with_id(0))
        np.testing.assert_array_equal(weights, without_weight())


@pytest.mark.parametrize("how", EXECUTIONS)
def test_labels_without_weight_may_be_anything(how):
    found, weights = run(how, labels, with_id(SIZE), without_weight())
    np.testing.assert_array_equal(found, with_id(0))
    np.testing.assert_array_equal(weights, without_weight())


def test_a_vocabulary_may_be_greater_than_the_dtype():
    ids = with_id(255, "uint8")
    np.testing.assert_array_equal(known_token_ids(ids, None, 300), ids)


def test_tokens_that_are_no_number_are_unknown():
    with pytest.raises(ValueError, match="Received: token_ids=.nan"):
        token_ids(with_id(float("nan"), "float32"))
