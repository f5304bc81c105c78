import numpy as np
import pytest

from keras_reformer.layers import AlibiBias
from tests.support import positioned, reference_positions
from tests.support.layer_checks import check_config
from tests.support.positioned import HEADS, KINDS, make_built, make_inputs


def biases(layer, length, execution=lambda function: function):
    """`(heads, length, length)`."""
    heads, query, key = np.ogrid[: layer.num_heads, :length, :length]
    arguments = [x.astype("int32") for x in (query, key, heads)]
    return np.asarray(execution(layer)(*arguments))


def test_config():
    check_config(AlibiBias(5, alibi_bias_max=4, name="bias"))


@pytest.mark.parametrize(
    "num_heads, exponents",
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_are_the_published_ones(num_heads, exponents):
    slopes = -biases(AlibiBias(num_heads, dtype="float64"), 2)[:, 0, 1]
    expected = 2.0 ** -np.array(exponents)
    np.testing.assert_allclose(slopes, expected, rtol=1e-12)
    np.testing.assert_allclose(
        reference_positions.alibi_slopes(num_heads), expected, rtol=1e-12
    )


def test_the_last_slope_is_an_argument():
    slopes = -biases(AlibiBias(4, alibi_bias_max=2), 2)[:, 0, 1]
    np.testing.assert_allclose(slopes, 2.0 ** -np.array([0.5, 1, 1.5, 2]))


@pytest.mark.parametrize("num_heads", [1, 3, 8, 11])
def test_equals_the_reference(num_heads, execution):
    found = biases(AlibiBias(num_heads), 13, execution)
    expected = reference_positions.alibi_bias(num_heads, 13)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "policy, dtype",
    [
        ("mixed_bfloat16", "float32"),
        ("float16", "float32"),
        ("float64", "float64"),
    ],
)
def test_biases_are_float32_at_least(policy, dtype):
    layer = AlibiBias(3, dtype=policy)
    found = biases(layer, 300)
    assert found.dtype == dtype
    expected = reference_positions.alibi_bias(3, 300)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_adds_it_to_scores(kind, causal):
    bias = AlibiBias(HEADS, dtype="float64")
    layer = make_built(kind, position_bias=bias, causal=causal)
    inputs, mask = make_inputs()
    expected = positioned.expected_output(
        layer,
        inputs,
        mask,
        bias=reference_positions.alibi_bias(HEADS, inputs.shape[1]),
    )
    # Where rounds meet pairs again, their number is taken in float32.
    np.testing.assert_allclose(layer(inputs, mask=mask), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_refuses_a_bias_of_other_heads(kind):
    layer = positioned.make_attention(kind, position_bias=AlibiBias(HEADS + 1))
    inputs, _ = make_inputs()
    with pytest.raises(
        ValueError,
        match=f"num_heads={HEADS}. Received: position_bias.num_heads=4",
    ):
        layer.build(inputs.shape)


@pytest.mark.parametrize(
    "options",
    [{"num_heads": 0}, {"num_heads": 2.5}, {"alibi_bias_max": 0}],
    ids=str,
)
def test_bad_arguments(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"Received: {name}="):
        AlibiBias(**{"num_heads": 2, **options})


@pytest.mark.parametrize("bias", ["alibi", AlibiBias])
def test_attention_refuses_what_is_no_layer(bias):
    with pytest.raises(ValueError, match="Received: position_bias="):
        positioned.make_attention("lsh", position_bias=bias)
