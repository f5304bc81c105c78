"""The published model's own numbers, where they are at hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import convert
from keras_reformer.convert.huggingface import _expected
from tests.convert import goldens

PATHS = goldens.paths()
pytestmark = pytest.mark.skipif(
    not PATHS, reason="the published model's vectors are not at hand"
)


@pytest.fixture(params=PATHS, ids=[path.stem for path in PATHS])
def golden(request):
    return goldens.load(request.param)


def convert_golden(golden):
    """The model, and its inputs."""
    model = convert.from_huggingface(
        golden.config, golden.weights, golden.rotations
    )
    mask = golden.arrays["attention_mask"].astype(bool)
    ids = golden.arrays["token_ids"].astype("int32")
    return model, {"token_ids": ids, "padding_mask": mask}


def worst(found, expected, valid):
    """The largest error at valid positions, in largest magnitudes."""
    found, expected = np.asarray(found)[valid], expected[valid]
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_outputs(golden):
    model, inputs = convert_golden(golden)
    mask = inputs["padding_mask"]
    if mask.all():
        inputs = inputs["token_ids"]
    hidden, logits = model.backbone(inputs), model(inputs)
    assert worst(hidden, golden.arrays["hidden"], mask) < 1e-5
    assert worst(logits, golden.arrays["logits"], mask) < 1e-5


@pytest.mark.parametrize("recompute", [True, False])
def test_loss_and_every_gradient(golden, recompute):
    if "loss" not in golden.arrays:
        pytest.skip("no loss was published for this case")
    model, inputs = convert_golden(golden)
    model.backbone.sequence.recompute = recompute
    ids = inputs["token_ids"]
    with tf.GradientTape() as tape:
        logits = model(ids)
        nats = keras.losses.sparse_categorical_crossentropy(
            ids[:, 1:], logits[:, :-1], from_logits=True
        )
        loss = tf.reduce_mean(nats)
    assert abs(float(loss) - golden.arrays["loss"]) < 1e-6 * float(loss)
    weights = _expected(model, "reformer.")
    found = tape.gradient(loss, [weight.variable.value for weight in weights])
    assert {weight.name for weight in weights} == set(golden.gradients)
    for weight, gradient in zip(weights, found, strict=True):
        expected = golden.gradients[weight.name]
        gradient = tf.convert_to_tensor(gradient).numpy()
        gradient = gradient.T if weight.transposed else gradient
        error = np.linalg.norm(gradient.reshape(expected.shape) - expected)
        assert error < 1e-4 * np.linalg.norm(expected), weight.name


def test_round_trip_is_bit_equal(golden):
    model, _ = convert_golden(golden)
    config, weights = convert.to_huggingface(model)
    assert set(weights) == set(golden.weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, golden.weights[name])
    again = convert.from_huggingface(config, weights)
    assert again.backbone.get_config() == {
        **model.backbone.get_config(),
        "name": again.backbone.name,
    }
