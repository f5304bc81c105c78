"""TensorFlow's tool for finding NaNs stops at the model's own, not at ours."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from tests.support.tiny import SMALLEST, make_ids, make_mask, make_model

BATCH = {"token_ids": make_ids(), "padding_mask": make_mask(make_ids())}


@pytest.fixture(autouse=True)
def check_numerics():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


def trained(run_eagerly=True, **options):
    model = make_model(dropout=0.1, **options)
    model.compile("sgd", run_eagerly=run_eagerly)
    model.fit(BATCH, verbose=0)
    return model


def test_training_and_inference():
    model = trained(num_layers=1, attention_layers=("lsh",))
    model.predict(BATCH, verbose=0)


def test_beams():
    model = make_model(**SMALLEST)
    (text,) = model.generate([[1, 2]], 6, sampler="beam", verbose=0)
    assert len(text) == 6


@pytest.mark.slow
def test_published_scope_and_biases():
    options = {"scope": "chunk", "wrap": True, "position_bias": "relative"}
    trained(run_eagerly=False, **options)


@pytest.mark.parametrize(
    "layer",
    [
        keras_reformer.LSHSelfAttention(
            2, 4, num_buckets=4, chunk_length=8, discount_duplicates=True
        ),
        keras_reformer.LSHSelfAttention(2, 4, num_buckets=4, exact_below=99),
        keras_reformer.LocalSelfAttention(2, 4, chunk_length=8, causal=True),
    ],
)
def test_layers_where_nothing_is_visible(layer):
    x = keras.random.normal((2, 37, 8))
    mask = np.zeros((2, 37), bool)
    mask[0, 20:21] = True
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, mask=mask, training=True)
    assert np.isfinite(tape.gradient(y, x)).all()


def test_a_nan_of_the_model_is_found():
    model = make_model()
    embeddings = model.backbone.token_embedding.embeddings
    embeddings.assign(np.full(embeddings.shape, np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
        model(BATCH)
