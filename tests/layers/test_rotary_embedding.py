import math

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LSHSelfAttention, RotaryEmbedding
from keras_reformer.ops.attention.positions import angles
from tests.support import positioned, reference, reference_positions
from tests.support.layer_checks import check_layer
from tests.support.positioned import KINDS, make_built, make_inputs

SHAPE = (2, 3, 13, 6)


def make_vectors(seed=0):
    return np.random.default_rng(seed).normal(size=SHAPE)


def turned(heads):
    return reference_positions.rotate(heads, 100)


def rotary(dtype="float64"):
    # Short waves: no test here has long inputs.
    return RotaryEmbedding(max_wavelength=100, dtype=dtype)


def test_layer_is_at_home_in_keras():
    check_layer(lambda dtype=None: RotaryEmbedding(100, dtype=dtype), SHAPE)


@pytest.mark.parametrize("max_wavelength", [10000, 2.5])
@pytest.mark.parametrize("start", [0, 5, 100003])
def test_equals_the_reference(max_wavelength, start, execution):
    layer = RotaryEmbedding(max_wavelength, dtype="float64")
    at = execution(lambda x, start: layer(x, start_index=start))
    x = make_vectors()
    expected = reference_positions.rotate(x, max_wavelength, start)
    np.testing.assert_allclose(layer(x, start_index=start), expected, atol=1e-9)
    np.testing.assert_allclose(at(x, tf.constant(start)), expected, atol=1e-9)


@pytest.mark.parametrize(
    "dim, max_wavelength", [(6, 10000.0), (64, 500.0), (127, 10000.0)]
)
def test_angles_of_a_million_positions(dim, max_wavelength, execution):
    positions = np.arange(999_000, 1_001_000, dtype="int32")
    found = execution(lambda x: angles(x, dim, max_wavelength, tf.float32))(
        tf.constant(positions)
    )
    expected = reference_positions.angle(
        positions[:, None], np.arange((dim + 1) // 2), dim, max_wavelength
    )
    difference = np.asarray(found, "float64") - expected
    turn = 2 * math.pi
    difference = np.mod(difference + math.pi, turn) - math.pi
    assert np.abs(difference).max() < 1e-4


def test_scores_depend_on_the_distance_alone():
    layer = rotary()
    x, y = make_vectors()[..., :1, :], make_vectors(1)[..., :1, :]

    def score(i, j):
        query, key = layer(x, start_index=i), layer(y, start_index=j)
        return tf.reduce_sum(query * key, -1)

    for distance in (0, 1, 5):
        near = score(distance, 0)
        np.testing.assert_allclose(score(distance + 101, 101), near)
        assert np.abs(near - score(distance + 1, 0)).max() > 1e-3


@pytest.mark.parametrize("dtype, atol", [("float64", 1e-12), ("float32", 1e-5)])
def test_lengths_do_not_change(dtype, atol):
    x = make_vectors().astype(dtype)
    found = rotary(dtype)(x, start_index=12345)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=-1), np.linalg.norm(x, axis=-1), atol=atol
    )


def test_half_precision_turns_by_exact_angles():
    x = make_vectors()
    found = rotary("bfloat16")(x, start_index=10007)
    expected = reference_positions.rotate(x, 100, 10007)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_turned_vectors(kind, causal):
    layer = make_built(kind, rotary_embedding=rotary(), causal=causal)
    inputs, mask = make_inputs()
    np.testing.assert_allclose(
        layer(inputs, mask=mask),
        positioned.expected_output(layer, inputs, mask, turn=turned),
        atol=1e-10,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind):
    layer = make_built(kind, rotary_embedding=rotary(), causal=True)
    positioned.check_gradients(layer, layer.trainable_variables)


def test_hashing_sees_turned_vectors():
    layer = make_built("lsh", rotary_embedding=rotary())
    inputs, mask = make_inputs()
    heads = positioned.heads_of(layer.query_key, inputs)
    expected, unturned = (
        reference.hash_vectors(x, layer.rotations, [positioned.BUCKETS], mask)
        for x in (turned(heads), heads)
    )
    np.testing.assert_array_equal(layer.hash(inputs, mask=mask), expected)
    assert np.mean(expected != unturned) > 0.2


@pytest.mark.parametrize(
    "dim, expected", [(5, "even"), (None, "dimension is known")]
)
def test_refuses_a_width_that_has_no_pairs(dim, expected):
    received = rf"{expected}. Received: input_shape=\(2, "
    with pytest.raises(ValueError, match=received):
        RotaryEmbedding().build((2, 13, dim))


def test_refuses_heads_that_have_no_pairs():
    layer = LSHSelfAttention(2, 5, rotary_embedding=RotaryEmbedding())
    with pytest.raises(ValueError, match="even. Received: input_shape="):
        layer.build((2, 13, 7))


@pytest.mark.parametrize("max_wavelength", [0, -1.0, "long", None])
def test_refuses_a_bad_wavelength(max_wavelength):
    with pytest.raises(ValueError, match="Received: max_wavelength="):
        RotaryEmbedding(max_wavelength)


@pytest.mark.parametrize("layer", ["rotary", RotaryEmbedding])
def test_refuses_what_is_no_layer(layer):
    with pytest.raises(ValueError, match="Received: rotary_embedding="):
        LSHSelfAttention(2, 6, rotary_embedding=layer)
