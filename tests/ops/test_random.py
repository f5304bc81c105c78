import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.dropout import dropout, keep_scale
from keras_reformer.ops.random import random_bits, split_seed, standard_normal

SHAPE = (31, 257, 129)
SEED = tf.constant([12345, 678])


def kept(rate, seed, shape=SHAPE):
    return dropout(tf.ones(shape), rate, seed).numpy() != 0


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_every_bit_is_set_half_of_the_time():
    bits = random_bits(SEED, tf.range(2**18)).numpy()
    share = [np.mean((bits >> bit) & 1) for bit in range(32)]
    np.testing.assert_allclose(share, 0.5, atol=0.005)


def test_bits_fill_their_range_evenly():
    bits = random_bits(SEED, tf.range(2**18)).numpy()
    counts = np.bincount(bits >> 24, minlength=256)
    expected = 2**18 / 256
    chi_square = np.sum((counts - expected) ** 2 / expected)
    # 255 degrees of freedom: mean 255, standard deviation 23.
    assert 150 < chi_square < 370


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_rate(rate):
    mask = kept(rate, SEED)
    assert abs(mask.mean() - (1 - rate)) < 0.002
    for axis in range(3):
        others = tuple(set(range(3)) - {axis})
        share = mask.mean(axis=others)
        deviation = np.sqrt(rate * (1 - rate) / (mask.size / len(share)))
        assert np.all(np.abs(share - (1 - rate)) < 6 * deviation)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 64])
def test_neighbours_are_independent(axis, distance):
    if distance >= SHAPE[axis]:
        pytest.skip("no such neighbour")
    mask = kept(0.5, SEED)
    ahead = np.take(mask, range(distance, SHAPE[axis]), axis)
    behind = np.take(mask, range(SHAPE[axis] - distance), axis)
    assert abs(correlation(ahead, behind)) < 0.005


@pytest.mark.parametrize(
    "other", [[12345, 679], [12346, 678], [678, 12345], [12345, 0]]
)
def test_steps_and_layers_are_independent(other):
    masks = kept(0.5, SEED), kept(0.5, tf.constant(other))
    assert abs(correlation(*masks)) < 0.005


def test_the_seed_decides(execution):
    mask = execution(lambda x, seed: dropout(x, 0.3, seed))
    first = mask(tf.ones(SHAPE), SEED)
    np.testing.assert_array_equal(first, dropout(tf.ones(SHAPE), 0.3, SEED))


def test_gradient_uses_the_same_mask():
    inputs = tf.random.stateless_normal((5, 7, 11), [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = dropout(inputs, 0.3, SEED)
    gradient = tape.gradient(outputs, inputs).numpy()
    np.testing.assert_allclose(outputs, inputs * gradient)
    assert set(np.unique(gradient)) == {0.0, np.float32(1 / 0.7)}


def test_shared_axes_share_their_draws():
    mask = dropout(tf.ones(SHAPE), 0.5, SEED, shared_axes=(1,)).numpy()
    assert np.all(mask == mask[:, :1])
    assert 0.4 < np.mean(mask[:, 0] == 0) < 0.6


def test_a_chunk_of_a_sequence_has_the_sequences_mask():
    whole = dropout(tf.ones((2, 20, 3)), 0.5, SEED)
    part = dropout(tf.ones((2, 5, 3)), 0.5, SEED, first_position=10)
    np.testing.assert_array_equal(whole[:, 10:15], part)


def test_scale_has_the_coordinates_shape():
    scale = keep_scale(0.5, SEED, tf.range(7)[:, None], tf.range(5))
    assert scale.shape == (7, 5)
    assert scale.dtype == tf.float32


def test_split_seeds_differ():
    first, second = split_seed(SEED, 2)
    assert first.shape == second.shape == (2,)
    assert not np.array_equal(first, second)


def test_normal_draws_are_normal_and_the_same_everywhere(execution):
    draw = execution(lambda seed: standard_normal(seed, (100, 1000)))(SEED)
    expected = standard_normal(SEED, (100, 1000)).numpy()
    np.testing.assert_allclose(draw, expected, atol=1e-5)
    assert abs(expected.mean()) < 0.01
    assert abs(expected.std() - 1) < 0.01
    assert abs(np.mean(expected**4) - 3) < 0.1
    assert abs(correlation(expected[1:], expected[:-1])) < 0.01
    assert abs(correlation(expected[:, 1:], expected[:, :-1])) < 0.01
