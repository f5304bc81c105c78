import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.models.targets import class_weights, targets
from tests.support import tiny

SIZE = tiny.VOCABULARY
IDS = tiny.make_ids(3, 5)
LABELS = tiny.make_ids(3, 5, seed=1)
WEIGHTS = np.random.default_rng(2).random(IDS.shape).astype("float32")
INPUTS = {"token_ids": IDS, "padding_mask": tiny.make_mask(IDS)}


def test_a_last_axis_of_one_is_left_out():
    expected = targets(INPUTS, LABELS, WEIGHTS, SIZE)
    found = targets(INPUTS, LABELS[..., None], WEIGHTS[..., None], SIZE)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_weights_of_rows(shape):
    rows = np.array([0.5, 2.0, 0.0], "float32").reshape(shape)
    _, weights = targets(INPUTS, LABELS, rows, SIZE)
    expected = INPUTS["padding_mask"] * rows.reshape(3, 1)
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 4), (3, 5, 11), (3, 5, 2)])
def test_labels_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError) as refusal:
        targets(INPUTS, np.zeros(shape, "int32"), None, SIZE)
    assert f"labels.shape={shape}" in str(refusal.value)
    assert "(batch, length)" in str(refusal.value)


@pytest.mark.parametrize("shape", [(), (3, 4), (3, 5, 2)])
def test_weights_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError) as refusal:
        targets(INPUTS, LABELS, np.zeros(shape, "float32"), SIZE)
    assert f"sample_weight.shape={shape}" in str(refusal.value)


@pytest.mark.parametrize("how", ["graph", "xla"])
def test_labels_are_never_broadcast(how):
    """Not even where a graph does not know shapes while it is traced."""
    any_shape = tf.TensorSpec((None, None), tf.int32)

    def run(ids, labels):
        inputs = {"token_ids": ids, "padding_mask": None}
        return targets(inputs, labels, None, SIZE)

    function = tf.function(
        run,
        input_signature=[any_shape, any_shape],
        jit_compile=how == "xla",
        autograph=False,
    )
    np.testing.assert_array_equal(function(IDS, LABELS)[0], LABELS)
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(IDS, LABELS[:, :1])


def test_one_hot_labels_are_left_to_a_users_loss():
    labels = np.eye(SIZE, dtype="float32")[LABELS]
    found, weights = targets(INPUTS, labels, None, SIZE, one_hot=True)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(weights, INPUTS["padding_mask"])


def test_class_weights_of_all_tokens():
    found = class_weights({2: 0.0, np.int64(4): 3}, 6)
    np.testing.assert_array_equal(found, [1, 1, 0, 1, 3, 1])


@pytest.mark.parametrize(
    "bad", [[1.0], {-1: 1.0}, {6: 1.0}, {"a": 1.0}, {2: -1.0}, {2: "x"}]
)
def test_other_class_weights_are_refused(bad):
    with pytest.raises(ValueError, match="class_weight=") as refusal:
        class_weights(bad, 6)
    assert repr(bad) in str(refusal.value)
