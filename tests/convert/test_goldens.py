"""The published model's own numbers, where they are at hand.

`-s` prints the largest error of each case.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import convert
from keras_reformer.convert.huggingface import _expected
from tests.support import goldens, published

pytestmark = pytest.mark.skipif(
    not goldens.FOLDER.is_dir(),
    reason="the published model's vectors are not at hand",
)
WITH_LOSS = [name for name in goldens.NAMES if name.startswith("lm_")]


@pytest.fixture(params=goldens.NAMES)
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
    hidden = worst(model.backbone(inputs), golden.arrays["hidden"], mask)
    logits = worst(model(inputs), golden.arrays["logits"], mask)
    print(f"hidden states {hidden:.1e}, logits {logits:.1e}")
    assert max(hidden, logits) < 1e-5


@pytest.mark.parametrize("name", goldens.NAMES)
def test_the_loss_is_at_hand_where_it_is_expected(name):
    golden = goldens.load(name)
    assert ("loss" in golden.arrays) == (name in WITH_LOSS)
    assert bool(golden.gradients) == (name in WITH_LOSS)


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("name", WITH_LOSS)
def test_loss_and_every_gradient(name, recompute):
    golden = goldens.load(name)
    model, inputs = convert_golden(golden)
    model.backbone.sequence.recompute = recompute
    ids = inputs["token_ids"]
    with tf.GradientTape() as tape:
        logits = model(ids)
        nats = keras.losses.sparse_categorical_crossentropy(
            ids[:, 1:], logits[:, :-1], from_logits=True
        )
        loss = tf.reduce_mean(nats)
    loss_error = abs(float(loss) - golden.arrays["loss"])
    errors = gradient_errors(model, tape, loss, golden.gradients)
    assert set(errors) == set(golden.gradients)
    print(f"loss {loss_error:.1e}, gradients {max(errors.values()):.1e}")
    assert loss_error < 1e-6 * float(loss)
    assert max(errors.values()) < 1e-4, errors


def gradient_errors(model, tape, loss, expected):
    """Each parameter's, relative to the norm of its gradient."""
    weights = _expected(model, "reformer.")
    found = tape.gradient(loss, [weight.variable.value for weight in weights])
    errors = {}
    for weight, gradient in zip(weights, found, strict=True):
        theirs = expected[weight.name]
        gradient = tf.convert_to_tensor(gradient).numpy()
        gradient = gradient.T if weight.transposed else gradient
        difference = gradient.reshape(theirs.shape) - theirs
        errors[weight.name] = np.linalg.norm(difference) / np.linalg.norm(
            theirs
        )
    return errors


def test_the_models_own_loss_is_the_published_one():
    golden = goldens.load("lm_lsh_causal")
    model, inputs = convert_golden(golden)
    model.compile("sgd", run_eagerly=True)
    loss = model.evaluate(inputs["token_ids"], verbose=0)
    assert abs(loss - golden.arrays["loss"]) < 1e-6 * loss


def test_round_trip_is_bit_equal(golden):
    model, _ = convert_golden(golden)
    config, weights = convert.to_huggingface(model)
    assert set(weights) == set(golden.weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, golden.weights[name])
    again = convert.from_huggingface(config, weights)
    options = published.options_of(again.backbone)
    assert options == published.options_of(model.backbone)
