"""Rows that query-keys and values share, on the platform that has them or
not."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.kernel import (
    OutputGradient,
    PairMask,
    attend,
    norms_of,
    softmax_weights,
)
from keras_reformer.ops.attention.lanes import (
    Lanes,
    spread_sum,
    to_bfloat16,
)

KEY_DIM, VALUE_DIM, TOKENS = 11, 5, 7
LANES = Lanes(KEY_DIM, VALUE_DIM)


def normal(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


@pytest.fixture
def gradient():
    numbers = normal(2, 3, TOKENS, seed=2) * 1e3
    return OutputGradient(
        normal(3, TOKENS, VALUE_DIM, seed=1), numbers[0], numbers[1]
    )


def test_what_rows_of_gradients_hold_comes_out_of_them(gradient):
    query_keys = normal(3, TOKENS, KEY_DIM)
    rows = LANES.rows(query_keys, normal(3, TOKENS, VALUE_DIM))
    d_rows = LANES.gradient_rows(gradient, rows)
    found = LANES.output_gradient(d_rows)
    _, d_output = LANES.split(d_rows)
    np.testing.assert_array_equal(d_output, gradient.output)
    np.testing.assert_array_equal(found.log_sum_exp, gradient.log_sum_exp)
    np.testing.assert_array_equal(found.row_sum, gradient.row_sum)
    keys, inverse = LANES.keys_by_gradient(rows, d_rows)
    norms = norms_of(query_keys)[..., None]
    np.testing.assert_allclose(inverse[..., :1], 1 / norms, rtol=1e-6)
    expected = LANES.rows(query_keys / norms, tf.zeros_like(d_output))
    np.testing.assert_allclose(keys, expected, rtol=1e-6)


def test_numbers_in_lanes_survive_the_rounding_of_a_product(gradient):
    rows = LANES.rows(normal(3, TOKENS, KEY_DIM), gradient.output)
    d_rows = LANES.gradient_rows(gradient, rows)
    numbers, _ = LANES.split(d_rows)
    rounded = numbers.numpy().astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(rounded, numbers)


@pytest.mark.parametrize("parts", [1, 3])
def test_sums_are_spread(parts):
    x = normal(2, 3, 9)
    found = spread_sum(x, 4, parts)
    assert found.shape == (2, 3, 4)
    expected = np.sum(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected + np.zeros(4), rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("drop", [False, True])
def test_sums_of_two_parts_are_one_softmax(scale, drop):
    """A query may see no key of a part, or none at all."""
    rng = np.random.default_rng(0)
    queries, keys = normal(TOKENS, 3, seed=1) * scale, normal(12, 3, seed=2)
    keys /= tf.norm(keys, axis=-1, keepdims=True)
    rows = LANES.rows(normal(12, KEY_DIM, seed=3), normal(12, VALUE_DIM))
    visible = rng.random((TOKENS, 12)) < 0.5
    visible[0, 6:] = visible[1, :6] = visible[2] = False
    keep_scale = tf.constant(rng.integers(0, 3, (TOKENS, 12)), tf.float32)

    def mask(part):
        kept = keep_scale[:, part] if drop else None
        return PairMask(tf.constant(visible[:, part]), keep_scale=kept)

    total = LANES.no_sums(tf.zeros([TOKENS, KEY_DIM + VALUE_DIM]))
    for part in slice(6), slice(6, 12):
        made = softmax_weights(queries, keys[part], mask(part), to_bfloat16)
        weights, undropped, largest = made
        sums = LANES.sums(weights, undropped, rows[part], largest)
        total = LANES.merge_sums(total, sums)
    _, values = LANES.split(rows)
    expected = attend(queries, keys, values, mask(slice(12)))
    for found, value in zip(LANES.softmax(total), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)


def test_bfloat16_holds_the_nearest_number():
    x = tf.concat([normal(50) * 1e3, [0.0, -np.inf]], axis=0)
    expected = x.numpy().astype(ml_dtypes.bfloat16).astype("float32")
    found = to_bfloat16(x).numpy()
    np.testing.assert_array_equal(found, expected)
