import math

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import AxialPositionEmbedding
from tests.support import reference
from tests.support.layer_checks import check_layer

AXES = [((7,), (5,)), ((3, 5), (2, 7)), ((2, 3, 5), (3, 1, 4))]


def make_layer(shape=(3, 5), dims=(2, 7), **options):
    return AxialPositionEmbedding(
        shape, dims, embeddings_initializer="normal", **options
    )


def built(shape, dims):
    layer = make_layer(shape, dims, dtype="float64")
    layer.build((None, None, sum(dims)))
    return layer


def rows(layer, stop, start=0):
    tables = [table.numpy() for table in layer.tables]
    return reference.axial_positions(tables, stop)[start:]


@pytest.mark.parametrize("length", [13, 15])
def test_layer_is_at_home_in_keras(length):
    check_layer(
        lambda dtype=None: make_layer(dtype=dtype),
        (3, length, 9),
        # A shorter text does not reach the last rows.
        trains=length == 15,
    )


@pytest.mark.parametrize("shape, dims", AXES)
def test_equals_the_reference_at_any_length(shape, dims):
    layer = built(shape, dims)
    for length in range(1, math.prod(shape) + 1):
        output = layer(tf.zeros((2, length, sum(dims)), "float64"))
        expected = rows(layer, length)
        np.testing.assert_array_equal(output, [expected, expected])


@pytest.mark.parametrize("shape, dims", AXES)
def test_start_index_is_the_first_position(shape, dims, execution):
    layer = built(shape, dims)
    last = math.prod(shape)
    at = execution(lambda x, start: layer(x, start_index=start))
    for start, length in [(0, 3), (1, 2), (last - 1, 1), (last - 4, 4)]:
        x = tf.zeros((2, length, sum(dims)), "float64")
        expected = [rows(layer, start + length, start)] * 2
        np.testing.assert_array_equal(layer(x, start_index=start), expected)
        np.testing.assert_array_equal(at(x, tf.constant(start)), expected)


@pytest.mark.parametrize("shape, dims", AXES)
@pytest.mark.parametrize("start", [0, 2])
def test_gradient_counts_every_use_of_a_row(shape, dims, start, execution):
    layer = built(shape, dims)
    length = math.prod(shape) - 2 - start
    x = tf.zeros((3, length, sum(dims)), "float64")
    weights = np.random.default_rng(0).normal(size=x.shape)

    def run(x):
        with tf.GradientTape() as tape:
            output = layer(x, start_index=start)
            loss = tf.reduce_sum(output * weights)
        return tape.gradient(loss, [v.value for v in layer.tables])

    expected = [np.zeros(table.shape) for table in layer.tables]
    for position in range(length):
        indices = np.unravel_index(start + position, shape)
        parts = np.split(weights[:, position].sum(axis=0), np.cumsum(dims)[:-1])
        for axis, index in enumerate(indices):
            expected[axis][index] += parts[axis]
    for gradient, table in zip(execution(run)(x), expected, strict=True):
        gradient = tf.convert_to_tensor(gradient)
        np.testing.assert_allclose(gradient, table, atol=1e-12)


def test_contents_of_the_inputs_do_not_matter():
    layer = make_layer()
    x = tf.random.stateless_normal((2, 13, 9), [1, 2])
    np.testing.assert_array_equal(layer(x), layer(tf.zeros_like(x)))


def test_default_initializer_is_small():
    layer = AxialPositionEmbedding((100, 100), (100, 100))
    layer.build((None, None, 200))
    for table in layer.tables:
        assert 0.018 < np.std(table) < 0.022


@pytest.mark.parametrize("length, start", [(16, 0), (15, 1), (1, 15)])
def test_refuses_positions_beyond_the_table(length, start):
    layer = make_layer()
    with pytest.raises(
        ValueError, match=f"Received: length={length}, start_index={start}"
    ):
        layer(tf.zeros((1, length, 9)), start_index=start)


def test_known_starts_beyond_the_table_are_refused():
    """Those of each row too, and while a graph is traced."""
    layer, x = make_layer(), tf.zeros((3, 2, 9))

    def call():
        return layer(x, start_index=tf.constant([0, 14, 13]))

    for each in (call, tf.function(call)):
        with pytest.raises(ValueError, match=r"start_index=\[14\], length=2"):
            each()


def test_unknown_starts_beyond_the_table_do_not_begin_anew():
    layer, x = make_layer(), tf.zeros((1, 1, 9))

    def call(start):
        return layer(x, start_index=start)

    beyond = tf.constant([15])
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        tf.function(call)(beyond)
    # XLA knows no errors: there it is the last row of the first axis.
    found = tf.function(call, jit_compile=True)(beyond)
    np.testing.assert_array_equal(found[0, 0, :2], layer.tables[0][-1])


@pytest.mark.parametrize(
    "shape, dims, received",
    [
        ((3, 5), (9,), r"shape=\[3, 5\], dims=\[9\]"),
        ((), (), r"shape=\[\], dims=\[\]"),
        ((3, 0), (2, 7), "shape=0"),
        ((3, 5), (2, -7), "dims=-7"),
        ((3, 5.0), (2, 7), "shape=5.0"),
        (15, (2, 7), "shape=15"),
        ((3, 5), 9, "dims=9"),
    ],
)
def test_refuses_axes_that_do_not_fit(shape, dims, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        make_layer(shape, dims)


@pytest.mark.parametrize(
    "shape, received",
    [
        ((2, 9), r"input_shape=\(2, 9\)"),
        ((2, 3, 3, 9), r"input_shape=\(2, 3, 3, 9\)"),
        ((2, 3, 8), r"dims=\[2, 7\]"),
    ],
)
def test_refuses_inputs_that_do_not_fit(shape, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        make_layer()(tf.zeros(shape))
