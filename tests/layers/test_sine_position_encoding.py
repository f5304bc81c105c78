import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import SinePositionEncoding
from tests.support import reference_positions
from tests.support.layer_checks import check_layer

SHAPE = (2, 13, 7)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_layer_is_at_home_in_keras(dim):
    check_layer(
        lambda dtype=None: SinePositionEncoding(100, dtype=dtype), (2, 13, dim)
    )


@pytest.mark.parametrize("dim", [1, 2, 7, 8])
@pytest.mark.parametrize("max_wavelength", [10000, 2.5])
def test_equals_the_reference(dim, max_wavelength):
    layer = SinePositionEncoding(max_wavelength, dtype="float64")
    output = layer(tf.zeros((2, 13, dim), "float64"))
    expected = reference_positions.sine_positions(13, dim, max_wavelength)
    np.testing.assert_allclose(output, [expected, expected], atol=1e-10)


@pytest.mark.parametrize("start", [0, 5, 999_983])
def test_start_index_is_the_first_position(start, execution):
    layer, x = SinePositionEncoding(), tf.zeros(SHAPE)
    at = execution(lambda x, start: layer(x, start_index=start))
    expected = reference_positions.sine_positions(13, 7, start=start)
    for output in (layer(x, start_index=start), at(x, tf.constant(start))):
        np.testing.assert_allclose(output, [expected] * 2, atol=1e-4)


def test_decoding_sees_what_the_whole_sequence_sees():
    layer, x = SinePositionEncoding(), tf.zeros(SHAPE)
    whole = layer(x)
    for index in range(SHAPE[1]):
        one = layer(x[:, index : index + 1], start_index=index)
        np.testing.assert_allclose(one[:, 0], whole[:, index], atol=1e-6)


def test_contents_of_the_inputs_do_not_matter():
    layer = SinePositionEncoding()
    x = tf.random.stateless_normal(SHAPE, [1, 2])
    np.testing.assert_array_equal(layer(x), layer(tf.zeros_like(x)))


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 3, 7), (2, 3, None)])
def test_refuses_inputs_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"Received: input_shape=\(2, "):
        SinePositionEncoding().build(shape)


@pytest.mark.parametrize("max_wavelength", [0, -1.0, "long", None])
def test_refuses_a_bad_wavelength(max_wavelength):
    with pytest.raises(ValueError, match="Received: max_wavelength="):
        SinePositionEncoding(max_wavelength)
