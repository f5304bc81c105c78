import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LSHSelfAttention, MultiHeadAttention
from keras_reformer.ops.attention.exact import exact_attention
from keras_reformer.ops.attention.kernel import AttentionDropout
from tests.support.layer_checks import check_layer

BATCH, HEADS, KEY_DIM, VALUE_DIM, DIM, CHUNK = 2, 3, 5, 2, 7, 4
LENGTHS = [1, CHUNK, CHUNK + 1, 13]


def make_layer(**options):
    return MultiHeadAttention(
        **{
            "num_heads": HEADS,
            "key_dim": KEY_DIM,
            "value_dim": VALUE_DIM,
            "query_chunk_length": CHUNK,
            "bias_initializer": "normal",
            "seed": 3,
            **options,
        }
    )


def make_inputs(length, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(BATCH, length, DIM)).astype("float32")


def make_mask(*shape, seed=4):
    """A mask whose every row shows the first key."""
    mask = np.random.default_rng(seed).random((BATCH, *shape)) < 0.7
    mask[..., 0] = True
    return mask


def keras_twin(layer, query, value):
    """Keras's own layer, and a function that sets its weights to ours."""
    twin = keras.layers.MultiHeadAttention(HEADS, KEY_DIM, VALUE_DIM)
    twin.build(query.shape, value.shape)
    pairs = [
        (twin.query_dense, layer.query),
        (twin.key_dense, layer.key),
        (twin.value_dense, layer.value),
        (twin.output_dense, layer.attention_output),
    ]
    for theirs, ours in pairs:
        for a, b in zip(theirs.weights, ours.weights, strict=True):
            a.assign(tf.reshape(b.value, a.shape))
    return twin


def gradients(layer, query, value, options):
    """By the inputs and all weights, of a function of the outputs."""
    query, value = tf.constant(query), tf.constant(value)
    weights = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch((query, value))
        loss = tf.reduce_sum(tf.sin(layer(query, value, **options)))
    return tape.gradient(loss, [query, value, *weights])


def test_layer_is_at_home_in_keras():
    check_layer(
        lambda dtype=None: make_layer(dtype=dtype, dropout=0.1, causal=True),
        (BATCH, 13, DIM),
        masks=[make_mask(13)],
    )


@pytest.mark.covering(2)
@pytest.mark.parametrize("keys", LENGTHS)
@pytest.mark.parametrize("queries", LENGTHS)
def test_equals_keras(queries, keys, execution):
    layer = make_layer()
    query, value = make_inputs(queries), make_inputs(keys, seed=1)
    options = {
        "value_mask": make_mask(keys),
        "attention_mask": make_mask(queries, keys, seed=5),
    }
    found = execution(layer)(query, value, **options)
    expected = keras_twin(layer, query, value)(query, value, **options)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_gradients_equal_keras(length, causal):
    layer = make_layer()
    query, value = make_inputs(length), make_inputs(length, seed=1)
    layer.build(query.shape)
    options = {
        "use_causal_mask": causal,
        "attention_mask": make_mask(length, length),
    }
    found = gradients(layer, query, value, options)
    twin = keras_twin(layer, query, value)
    expected = gradients(twin, query, value, options)
    # Keras makes its projections in the same order.
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, tf.reshape(b, a.shape), atol=5e-6)


def test_self_attention_takes_one_mask_for_all():
    layer, x, mask = make_layer(), make_inputs(13), make_mask(13)
    alone = layer(x, mask=mask)
    expected = layer(x, x, query_mask=mask, value_mask=mask)
    np.testing.assert_array_equal(alone, expected)
    other = np.where(mask[..., None], x, 5.0)
    np.testing.assert_allclose(
        np.asarray(layer(other, mask=mask))[mask],
        np.asarray(alone)[mask],
        atol=1e-6,
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_shared_query_keys_are_what_lsh_attention_approximates(causal, length):
    layer = make_layer(share_query_key=True, causal=causal)
    lsh = LSHSelfAttention(
        HEADS,
        KEY_DIM,
        VALUE_DIM,
        causal=causal,
        exact_below=length,
        use_bias=True,
    )
    x, mask = make_inputs(length), make_mask(length)
    for each in (layer, lsh):
        each.build(x.shape)
    for name in ("query_key", "value", "attention_output"):
        getattr(lsh, name).set_weights(getattr(layer, name).get_weights())
    np.testing.assert_allclose(
        layer(x, mask=mask), lsh(x, mask=mask), atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("share_query_key", [True, False])
def test_nothing_to_see_gives_zeros(dtype, share_query_key):
    layer = make_layer(
        dtype=dtype, share_query_key=share_query_key, use_bias=False
    )
    outputs = layer(make_inputs(6), mask=np.zeros((BATCH, 6), bool))
    np.testing.assert_array_equal(outputs, np.zeros((BATCH, 6, DIM)))
    if not share_query_key:
        hidden = np.zeros((BATCH, 6, 6), bool)
        outputs = layer(make_inputs(6), attention_mask=hidden)
        np.testing.assert_array_equal(outputs, np.zeros((BATCH, 6, DIM)))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradient_equals_finite_differences(rate):
    rng = np.random.default_rng(1)
    shapes = [(2, 2, 5, 3), (2, 2, 9, 3), (2, 2, 9, 4)]
    arguments = [tf.constant(rng.normal(size=shape)) for shape in shapes]
    weights = rng.normal(size=(2, 2, 5, 4))
    options = {
        "attention_mask": tf.constant(rng.random((2, 5, 9)) < 0.7),
        "dropout": AttentionDropout(rate, tf.constant([1, 2]))
        if rate
        else None,
        "query_chunk_length": 4,
    }

    def loss(*arguments):
        return tf.reduce_sum(weights * exact_attention(*arguments, **options))

    with tf.GradientTape() as tape:
        tape.watch(arguments)
        total = loss(*arguments)
    for index, gradient in enumerate(tape.gradient(total, arguments)):
        direction = rng.normal(size=shapes[index])
        ends = []
        for step in (1e-5, -1e-5):
            moved = list(arguments)
            moved[index] = moved[index] + step * direction
            ends.append(float(loss(*moved)))
        slope = (ends[0] - ends[1]) / 2e-5
        expected = float(tf.reduce_sum(gradient * direction))
        assert abs(slope - expected) < 1e-6 * max(1, abs(expected))


def test_no_tensor_is_as_large_as_length_times_length():
    length = 1009
    layer = make_layer(query_chunk_length=64, causal=True)
    x = tf.ones((1, length, DIM))
    layer.build(x.shape)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x))
        return tape.gradient(loss, x)

    graph = tf.function(step, jit_compile=True)
    program = graph.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    assert f"{length}," in program
    assert f"{length},{length}" not in program
    assert f"1024,{length}" not in program


def test_shared_query_keys_refuse_other_values():
    layer = make_layer(share_query_key=True)
    x = make_inputs(5)
    with pytest.raises(ValueError, match="Expected value=None"):
        layer(x, make_inputs(6))


@pytest.mark.parametrize(
    "option", [{"num_heads": 0}, {"dropout": 1}, {"query_chunk_length": 0}]
)
def test_bad_arguments(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        make_layer(**option)
