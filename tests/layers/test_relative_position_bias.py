import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import RelativePositionBias, RotaryEmbedding
from tests.support import layer_checks, positioned, reference_positions
from tests.support.positioned import HEADS, KINDS, make_built, make_inputs

DISTANCES = np.arange(-300, 301, dtype="int32")


def make_bias(dtype="float64", **options):
    options = {"num_buckets": 8, "max_distance": 11, **options}
    return RelativePositionBias(
        HEADS, dtype=dtype, embeddings_initializer="normal", **options
    )


def classes(layer, back, execution=lambda function: function):
    """The class of each distance from a key on to its query, per head."""
    heads = np.arange(layer.num_heads, dtype="int32")[:, None]
    zeros = np.zeros_like(back)
    layer(back, zeros, heads)
    table = np.arange(layer.num_heads * layer.num_buckets, dtype="float32")
    layer.set_weights([table.reshape(layer.num_heads, -1)])
    found = execution(layer)(back, zeros, heads) - layer.num_buckets * heads
    return np.asarray(found)


def expected_bias(layer, length):
    """`(heads, length, length)`."""
    table = layer.embeddings.numpy()
    bias = np.zeros((len(table), length, length))
    for query, key in np.ndindex(length, length):
        bucket = reference_positions.relative_bucket(
            key - query, not layer.causal, layer.num_buckets, layer.max_distance
        )
        bias[:, query, key] = table[:, bucket]
    return bias


def test_config():
    layer_checks.check_config(
        RelativePositionBias(
            3,
            num_buckets=6,
            max_distance=19,
            causal=True,
            embeddings_initializer="uniform",
            embeddings_regularizer="l2",
            name="bias",
        )
    )


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "lsh" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_attention_with_positions_is_at_home_in_keras(kind):
    def make_layer(dtype=None):
        return positioned.make_attention(
            kind,
            dtype,
            position_bias=make_bias(dtype, num_buckets=4),
            rotary_embedding=RotaryEmbedding(100, dtype=dtype),
            shared_dropout=True,
            dropout=0.1,
            seed=3,
        )

    inputs, mask = make_inputs(dtype="float32")
    layer_checks.check_config(make_layer())
    layer_checks.check_saving(make_layer, inputs, {})
    if kind == "lsh":
        layer_checks.check_unknown_shapes(make_layer(), inputs, {}, [mask])
    if kind == "local":
        layer_checks.check_mixed_precision(make_layer, inputs, {}, "bfloat16")
        layer_checks.check_training(make_layer(), inputs, {})


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "num_buckets, max_distance", [(32, 128), (6, 7), (20, 251), (64, 256)]
)
def test_classes_are_the_published_ones(num_buckets, max_distance, causal):
    layer = RelativePositionBias(2, num_buckets, max_distance, causal)
    found = classes(layer, DISTANCES)
    expected = [
        reference_positions.relative_bucket(
            -int(back), not causal, num_buckets, max_distance
        )
        for back in DISTANCES
    ]
    np.testing.assert_array_equal(found, [expected, expected])
    # Nothing is at distance zero after a query.
    assert len(set(expected)) == num_buckets - (not causal)


@pytest.mark.parametrize(
    "options",
    [{"num_buckets": 2, "causal": True}, {"num_buckets": 4}],
    ids=str,
)
def test_fewest_classes(options, execution):
    layer = RelativePositionBias(1, max_distance=2, **options)
    back = np.arange(-3, 4, dtype="int32")
    (found,) = classes(layer, back, execution)
    expected = [0, 0, 0, 0, 1, 1, 1] if layer.causal else [3, 3, 3, 0, 1, 1, 1]
    np.testing.assert_array_equal(found, expected)


def test_default_initializer_is_small():
    layer = RelativePositionBias(100, num_buckets=100)
    layer.build((None,))
    assert 0.018 < np.std(layer.embeddings) < 0.022


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_biases_are_float32_at_least(policy):
    layer = make_bias(policy)
    output = layer(*(np.zeros((2, 3), "int32") for _ in range(3)))
    assert output.dtype == layer.embeddings.dtype == "float32"


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_adds_it_to_scores(kind, causal):
    bias = make_bias(causal=causal)
    layer = make_built(kind, position_bias=bias, causal=causal)
    inputs, mask = make_inputs()
    expected = positioned.expected_output(
        layer, inputs, mask, bias=expected_bias(bias, inputs.shape[1])
    )
    # Where rounds meet pairs again, their number is taken in float32.
    np.testing.assert_allclose(layer(inputs, mask=mask), expected, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind, causal):
    bias = make_bias(causal=causal)
    layer = make_built(kind, position_bias=bias, causal=causal)
    positioned.check_gradients(layer, [bias.embeddings])


@pytest.mark.parametrize(
    "kind", [pytest.param("lsh", marks=pytest.mark.slow), "local"]
)
def test_no_tensor_is_as_large_as_length_times_length(kind):
    length = 2003
    layer = make_built(kind, position_bias=make_bias())
    x = tf.ones((1, length, positioned.DIM), "float64")

    def step(x):
        values = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x))
        return tape.gradient(loss, [x, *values])

    graph = tf.function(step, jit_compile=True)
    program = graph.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    sizes = [
        math.prod(map(int, shape.split(",")))
        for shape in re.findall(r"[a-z]\d+\[([\d,]+)\]", program)
    ]
    assert length * positioned.DIM in sizes
    assert max(sizes) < length**2 / 4


def test_a_regularizer_counts_in_attention():
    bias = make_bias(embeddings_regularizer=keras.regularizers.L2(0.5))
    layer = make_built("local", position_bias=bias)
    expected = 0.5 * np.sum(bias.embeddings.numpy() ** 2)
    layer(make_inputs()[0])
    np.testing.assert_allclose(sum(layer.losses), expected)


def test_attention_refuses_a_bias_of_other_heads():
    bias = RelativePositionBias(HEADS - 1)
    layer = positioned.make_attention("lsh", position_bias=bias)
    with pytest.raises(ValueError, match="Received: position_bias.num_heads=2"):
        layer.build((None, 13, positioned.DIM))


@pytest.mark.parametrize(
    "options, received",
    [
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_buckets": 0}, "num_buckets=0"),
        ({"max_distance": -1}, "max_distance=-1"),
        ({"num_buckets": 1, "causal": True}, "num_buckets=1, causal=True"),
        ({"num_buckets": 2}, "num_buckets=2, causal=False"),
        ({"num_buckets": 7}, "num_buckets=7, causal=False"),
        ({"max_distance": 8}, "max_distance=8, num_buckets=32"),
    ],
    ids=str,
)
def test_bad_arguments(options, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        RelativePositionBias(**{"num_heads": 2, **options})
