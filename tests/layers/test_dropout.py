import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import Dropout
from tests.support.layer_checks import check_layer

RATE = 0.3
SHAPE = (11, 101, 97)
# Standard deviations; a fair generator passes it all but once in 10,000 draws.
WIDE = 4.5


def kept(layer, shape=SHAPE):
    """The mask of one call: 1 where an element is kept, 0 elsewhere."""
    output = layer(tf.ones(shape), training=True).numpy()
    scale = 1 / (1 - layer.rate)
    np.testing.assert_allclose(np.unique(output), [0, scale], rtol=1e-6)
    return (output > 0).astype(float)


def assert_independent(one, other):
    """Two masks correlate no more than chance lets them."""
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert abs(correlation) < WIDE / np.sqrt(one.size)


def test_layer_is_at_home_in_keras():
    check_layer(
        lambda dtype=None: Dropout(RATE, shared_axes=(1,), seed=3, dtype=dtype),
        (3, 5, 7),
    )


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_drops_the_rate(rate):
    output = Dropout(rate, seed=1)(tf.ones(SHAPE), training=True).numpy()
    deviation = np.sqrt(rate * (1 - rate) / output.size)
    assert abs((output == 0).mean() - rate) <= WIDE * deviation


def test_every_axis_drops_the_rate():
    mask = kept(Dropout(RATE, seed=2))
    for axis in range(mask.ndim):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        shares = mask.mean(axis=others)
        deviation = np.sqrt(RATE * (1 - RATE) * shares.size / mask.size)
        assert abs(shares - (1 - RATE)).max() < WIDE * deviation


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 8])
def test_neighbours_are_independent(axis, distance):
    mask = np.moveaxis(kept(Dropout(RATE, seed=4)), axis, 0)
    assert_independent(mask[distance:], mask[:-distance])


def test_steps_are_independent():
    layer = Dropout(RATE, seed=5)
    first, second, third = (kept(layer) for _ in range(3))
    assert_independent(first, second)
    assert_independent(first, third)
    assert_independent(first[:, 1:], second[:, :-1])


@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (6, 7), (5, 1029)])
def test_seeds_are_independent(seeds):
    assert_independent(*(kept(Dropout(RATE, seed=seed)) for seed in seeds))


def test_layers_without_a_seed_are_independent():
    assert_independent(kept(Dropout(RATE)), kept(Dropout(RATE)))


def test_same_seed_same_mask_in_every_execution(execution):
    expected = kept(Dropout(RATE, seed=9))
    layer = Dropout(RATE, seed=9)
    output = execution(lambda x: layer(x, training=True))(tf.ones(SHAPE))
    np.testing.assert_array_equal(output > 0, expected > 0)


def test_gradient_uses_the_mask_of_the_output(execution):
    layer = Dropout(RATE, seed=9)
    x = tf.random.stateless_normal((3, 5, 7), [1, 2])

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, training=True)
        return output, tape.gradient(output, x)

    for _ in range(2):
        output, gradient = execution(run)(x)
        np.testing.assert_allclose(output, gradient * x, rtol=1e-6)
        assert 0 < np.mean(gradient == 0) < 1


@pytest.mark.parametrize("axes", [1, (1,), (0, 2), (-1,), (0, -2)])
def test_shared_axes_share_one_draw(axes):
    mask = kept(Dropout(RATE, shared_axes=axes, seed=3), (5, 7, 11))
    shared = {a % 3 for a in (axes if isinstance(axes, tuple) else (axes,))}
    for axis in range(3):
        is_constant = (mask == mask.take([0], axis=axis)).all()
        assert is_constant == (axis in shared)


def test_does_nothing_at_inference_or_at_rate_zero():
    x = tf.random.stateless_normal((3, 5, 7), [1, 2])
    np.testing.assert_array_equal(Dropout(RATE)(x), x)
    np.testing.assert_array_equal(Dropout(RATE)(x, training=False), x)
    np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_keeps_the_dtype(dtype):
    output = Dropout(0.5, seed=1, dtype=dtype)(
        tf.ones((3, 5), dtype), training=True
    )
    assert output.dtype == dtype
    assert set(np.unique(tf.cast(output, "float32"))) == {0.0, 2.0}


def test_is_a_keras_dropout():
    assert isinstance(Dropout(RATE), keras.layers.Dropout)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.1", None, float("nan")])
def test_refuses_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="Received: rate="):
        Dropout(rate)
