"""What models do with numbers, shapes and settings off the usual path."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.loops import tiling
from tests.support.tiny import make_backbone, make_ids, make_model


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.filterwarnings("ignore:overflow")
def test_overflow_and_nan_end_a_step_instead_of_hanging(recompute):
    model = make_model(recompute=recompute, dropout=0.1)
    inputs = tf.fill((1, 8, 16), float("nan"))
    values = [v.value for v in model.backbone.sequence.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = model.backbone.sequence(inputs, training=True)
    gradients = tape.gradient(outputs, [inputs, *values])
    assert np.isnan(outputs).all()
    assert all(gradient is not None for gradient in gradients[:1])


def test_mixed_float16_skips_a_step_that_overflows():
    model = make_model(dtype="mixed_float16", num_layers=1)
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), initial_scale=2.0**60
    )
    model.compile(optimizer, run_eagerly=True)
    before = [v.numpy() for v in model.trainable_variables]
    ids = make_ids(2, 20)
    model.train_on_batch(ids, ids)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert int(optimizer.inner_optimizer.iterations) == 0


def test_float64_trains():
    model = make_model(dtype="float64", num_layers=1)
    model.compile(
        "sgd", metrics=[keras_reformer.BitsPerByte()], run_eagerly=True
    )
    ids = make_ids(2, 20)
    history = model.fit(ids, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.predict(ids, verbose=0).dtype == "float64"


def test_labels_without_weight_may_be_out_of_range():
    model = make_model(num_layers=1)
    model.compile("sgd", run_eagerly=True)
    ids = make_ids(2, 20)
    labels = np.where(np.arange(20) < 5, -1, ids)
    weights = (labels >= 0).astype("float32")
    loss = model.evaluate(ids, labels, sample_weight=weights, verbose=0)
    zeros = np.maximum(labels, 0)
    expected = model.evaluate(ids, zeros, sample_weight=weights, verbose=0)
    assert np.isfinite(loss)
    np.testing.assert_allclose(loss, expected)


def test_a_model_without_trainable_weights_trains_nothing():
    model = make_model(num_layers=1)
    model.trainable = False
    model.compile("sgd", run_eagerly=True)
    ids = make_ids(2, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train_on_batch(ids, ids)


@pytest.mark.parametrize("num_hashes, exact_below", [(1, None), (3, 50)])
def test_what_was_set_on_a_layer_is_saved(num_hashes, exact_below, tmp_path):
    backbone = make_backbone()
    layer = backbone.sequence.blocks[1].attention.layer
    layer.num_hashes = num_hashes
    layer.exact_below = exact_below
    draw = np.random.default_rng(0).normal(size=(2, 8, num_hashes, 7))
    columns = sum(layer.num_buckets) // 2
    layer.rotations = np.resize(draw, (2, 8, num_hashes, columns))
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    again = loaded.sequence.blocks[1].attention.layer
    assert (again.num_hashes, again.exact_below) == (num_hashes, exact_below)
    ids = make_ids(2, 37)
    np.testing.assert_array_equal(
        loaded.predict(ids, verbose=0), backbone.predict(ids, verbose=0)
    )


@pytest.mark.parametrize("length", [3, 16, 21])
def test_windows_wider_than_a_group(length, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = tf.constant(rng.normal(size=(3, 2, 2, length, 5)))
    window = Window(4, 3, 2, False, True, False)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec((3, None, 2, None, 5), tf.float64)],
    )
    def run(vectors):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            output = local_attention(vectors[0], vectors[1], vectors[2], window)
        return output, tape.gradient(output, vectors)

    with tf.GradientTape() as tape:
        tape.watch(vectors)
        whole = local_attention(vectors[0], vectors[1], vectors[2], window)
    expected = whole, tape.gradient(whole, vectors)
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", 8)
    for part, total in zip(run(vectors), expected, strict=True):
        np.testing.assert_allclose(part, total, atol=1e-12)


def test_a_dynamic_length_beyond_the_table_is_an_error():
    layer = keras_reformer.AxialPositionEmbedding((3, 4), (2, 2))
    layer.build((None, None, 4))
    run = tf.function(
        layer, input_signature=[tf.TensorSpec((None, None, 4), tf.float32)]
    )
    assert run(tf.zeros((1, 12, 4))).shape == (1, 12, 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="position table"):
        run(tf.zeros((1, 13, 4)))
