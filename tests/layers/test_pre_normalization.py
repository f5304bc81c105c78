import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    PreNormalization,
    pre_normalization,
)
from tests.layer_checks import check_layer

SHAPE = (2, 13, 5)


def make_inputs(dtype="float32"):
    return 3 + 7 * tf.random.stateless_normal(SHAPE, [1, 2], dtype=dtype)


@keras.saving.register_keras_serializable(package="test_pre_normalization")
class Identity(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def test_layer_is_at_home_in_keras():
    def make_layer(dtype=None):
        layer = FeedForward(7, dtype=dtype)
        return PreNormalization(layer, dropout=0.1, seed=3, dtype=dtype)

    mask = np.random.default_rng(0).random(SHAPE[:2]) < 0.7
    check_layer(make_layer, SHAPE, masks=[mask])


def test_normalizes_runs_and_drops():
    layer = PreNormalization(Identity(), epsilon=0.1, dropout=0.4, seed=1)
    x = make_inputs()
    mean = np.mean(x, axis=-1, keepdims=True)
    variance = np.var(x, axis=-1, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 0.1)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    dropped = layer(x, training=True).numpy()
    assert 0.2 < np.mean(dropped == 0) < 0.6
    kept = dropped != 0
    np.testing.assert_allclose(
        dropped[kept], expected[kept] / 0.6, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_normalizes_in_float32(policy):
    layer = PreNormalization(Identity(dtype="float32"), dtype=policy)
    x = make_inputs() + 1000  # bfloat16 would round it to multiples of 4
    exact = PreNormalization(Identity())(x)
    np.testing.assert_allclose(layer(x), exact, atol=0.02)
    assert layer.normalization.compute_dtype == "float32"


def test_float64_stays_float64():
    layer = PreNormalization(FeedForward(7, dtype="float64"), dtype="float64")
    assert layer(make_inputs("float64")).dtype == "float64"
    assert layer.normalization.compute_dtype == "float64"


def test_hands_over_mask_and_training():
    seen = {}

    class Spy(keras.layers.Layer):
        supports_masking = True

        def call(self, inputs, mask=None, training=None):
            seen.update(mask=mask, training=training)
            return inputs

    mask = tf.constant(np.arange(13) < 9)[None] & tf.ones((2, 1), tf.bool)
    PreNormalization(Spy())(make_inputs(), mask=mask, training=True)
    np.testing.assert_array_equal(seen["mask"], mask)
    assert seen["training"] is True


@pytest.mark.parametrize("rate", [-0.1, 1.0, "0.1"])
def test_refuses_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="Received: dropout="):
        PreNormalization(Identity(), dropout=rate)


@pytest.mark.parametrize("layer", [None, "gelu", FeedForward])
def test_refuses_what_is_no_layer(layer):
    with pytest.raises(ValueError, match="Received: layer="):
        PreNormalization(layer)


@pytest.mark.parametrize("epsilon", ["small", None, -1e-6])
def test_refuses_a_bad_epsilon(epsilon):
    with pytest.raises(ValueError, match="Received: epsilon="):
        PreNormalization(Identity(), epsilon=epsilon)


def test_parts_of_a_long_sequence_change_nothing(monkeypatch, execution):
    layer = PreNormalization(FeedForward(7, bias_initializer="normal"))
    x = make_inputs()
    layer.build(x.shape)

    def gradients(x):
        variables = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y**3)
        return y, *tape.gradient(loss, [x, *variables])

    whole = execution(gradients)(x)
    lengths = []
    function = pre_normalization.map_positions

    def counting(*arguments):
        lengths.append(arguments[3])
        return function(*arguments)

    monkeypatch.setattr(pre_normalization, "_ELEMENTS_AT_ONCE", 64)
    monkeypatch.setattr(pre_normalization, "map_positions", counting)
    for one, other in zip(execution(gradients)(x), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert lengths and max(lengths) < 13
