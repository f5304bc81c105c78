import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    PreNormalization,
    pre_normalization,
)
from tests.support.layer_checks import check_layer

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


def test_every_option_is_at_home_in_keras():
    def make_layer(dtype=None):
        return PreNormalization(
            FeedForward(7, dtype=dtype),
            dropout=0.1,
            normalization="rms_norm",
            shared_dropout=True,
            stochastic_depth=0.1,
            stochastic_depth_seed=5,
            dtype=dtype,
        )

    check_layer(make_layer, SHAPE)


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


def test_rms_norm():
    layer = PreNormalization(
        Identity(), epsilon=0.1, normalization="rms_norm", dtype="float64"
    )
    x = make_inputs("float64").numpy()
    layer.build(x.shape)
    scale = np.arange(1, 6) / 3
    (variable,) = layer.trainable_variables
    variable.assign(scale)
    mean_square = np.mean(x**2, axis=-1, keepdims=True)
    expected = x / np.sqrt(mean_square + 0.1) * scale
    np.testing.assert_allclose(layer(x), expected, atol=1e-12)


def test_one_draw_of_shared_dropout_counts_for_all_positions():
    layer = PreNormalization(
        Identity(), dropout=0.4, shared_dropout=True, seed=1
    )
    x = tf.random.stateless_normal((31, 13, 17), [1, 2])
    dropped = layer(x, training=True).numpy() == 0
    np.testing.assert_array_equal(
        dropped, np.broadcast_to(dropped[:, :1], dropped.shape)
    )
    assert abs(dropped.mean() - 0.4) < 0.1
    for axis in (0, 2):
        assert (dropped != dropped.take([0], axis=axis)).any()


def test_stochastic_depth_drops_examples():
    layer = PreNormalization(
        Identity(), stochastic_depth=0.3, stochastic_depth_seed=1
    )
    x = 3 + tf.random.stateless_normal((1009, 2, 3), [1, 2])
    whole, found = layer(x).numpy(), layer(x, training=True).numpy()
    dropped = np.all(found == 0, axis=(1, 2))
    assert abs(dropped.mean() - 0.3) < 0.05
    np.testing.assert_allclose(
        found[~dropped], whole[~dropped] / 0.7, rtol=1e-5
    )
    # The mean over many examples is that of inference.
    share = np.sum(found * whole) / np.sum(whole**2)
    assert abs(share - 1) < 0.07


@pytest.mark.parametrize("normalization", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_normalizes_in_float32(policy, normalization):
    layer, exact = (
        PreNormalization(
            Identity(dtype="float32"), normalization=normalization, dtype=dtype
        )
        for dtype in (policy, "float32")
    )
    x = make_inputs() + 1000  # bfloat16 would round it to multiples of 4
    np.testing.assert_allclose(layer(x), exact(x), atol=0.02)
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


@pytest.mark.parametrize("rate", [-0.1, 1.0, "0.1"])
def test_refuses_a_bad_stochastic_depth(rate):
    with pytest.raises(ValueError, match="Received: stochastic_depth="):
        PreNormalization(Identity(), stochastic_depth=rate)


@pytest.mark.parametrize("kind", ["batch_norm", None, "LayerNorm"])
def test_refuses_an_unknown_normalization(kind):
    with pytest.raises(ValueError, match="Received: normalization="):
        PreNormalization(Identity(), normalization=kind)


@pytest.mark.parametrize("layer", [None, "gelu", FeedForward])
def test_refuses_what_is_no_layer(layer):
    with pytest.raises(ValueError, match="Received: layer="):
        PreNormalization(layer)


@pytest.mark.parametrize("epsilon", ["small", None, -1e-6])
def test_refuses_a_bad_epsilon(epsilon):
    with pytest.raises(ValueError, match="Received: epsilon="):
        PreNormalization(Identity(), epsilon=epsilon)


@pytest.mark.covering(1)
@pytest.mark.parametrize("normalization", ["layer_norm", "rms_norm"])
def test_parts_of_a_long_sequence_change_nothing(
    monkeypatch, execution, normalization
):
    layer = PreNormalization(
        FeedForward(7, bias_initializer="normal"), normalization=normalization
    )
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
