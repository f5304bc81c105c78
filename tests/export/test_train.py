"""Fine-tuning of what was exported, by TensorFlow alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import export_saved_model, warmup
from tests.support.tiny_exports import IDS, LENGTHS, MASK, causal_lm

# Two equal blocks are one loop, whose gradient is written by hand.
BLOCKS = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)]


@pytest.fixture(scope="module", params=BLOCKS, ids="{}-blocks".format)
def model(request):
    return causal_lm(
        num_layers=request.param, attention_layers="lsh", dropout=0.1
    )


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("train"))
    return export_saved_model(model, folder, trainable=True)


@pytest.fixture(scope="module")
def loaded(path):
    return tf.saved_model.load(path)


@tf.function
def original(model):
    inputs = {"token_ids": IDS, "padding_mask": MASK}
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = model.training_loss(inputs)
    return loss, tape.gradient(loss, variables)


def reloaded(loaded):
    with tf.GradientTape() as tape:
        loss = loaded.train(token_ids=IDS, lengths=LENGTHS)["loss"]
    return loss, tape.gradient(loss, loaded.trainable_variables)


@pytest.mark.slow
def test_gradients_equal_the_original_ones(model, loaded):
    # The second step draws other masks and rotations, and the same in both.
    losses = []
    for _ in range(2):
        loss, gradients = original(model)
        received_loss, received = reloaded(loaded)
        losses.append(float(loss))
        np.testing.assert_allclose(received_loss, loss, rtol=1e-5)
        assert len(received) == len(gradients) > 10
        for x, y in zip(received, gradients, strict=True):
            x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
            scale = np.max(np.abs(y))
            np.testing.assert_allclose(x, y, atol=1e-5 * scale, rtol=0)
    assert losses[0] != losses[1]


def test_the_loss_falls_and_answers_change(loaded):
    before = loaded.score(IDS, LENGTHS)["log_likelihood"]
    for _ in range(5):
        _, gradients = reloaded(loaded)
        for gradient, v in zip(
            gradients, loaded.trainable_variables, strict=True
        ):
            v.assign_sub(0.05 * tf.sign(tf.convert_to_tensor(gradient)))
    after = loaded.score(IDS, LENGTHS)["log_likelihood"]
    assert np.all(after > before)


def test_no_server_warms_it_up(path):
    assert "train" not in {name for name, _ in warmup.read(path)}
