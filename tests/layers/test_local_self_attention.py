import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LocalSelfAttention
from tests.support import reference
from tests.support.layer_checks import check_layer

BATCH, HEADS, KEY_DIM, VALUE_DIM, DIM, CHUNK = 2, 3, 5, 2, 7, 4
LENGTHS = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 13, 23]


def make_layer(**options):
    return LocalSelfAttention(
        **{
            "num_heads": HEADS,
            "key_dim": KEY_DIM,
            "value_dim": VALUE_DIM,
            "chunk_length": CHUNK,
            "use_bias": True,
            "bias_initializer": "normal",
            "seed": 3,
            **options,
        }
    )


def make_inputs(length, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(BATCH, length, DIM)).astype(dtype)


def make_mask(length):
    mask = np.random.default_rng(4).random((BATCH, length)) < 0.7
    mask[:, 0] = True
    return mask


def equations(layer, x, mask=None):
    """The layer from its definition, in NumPy."""

    def project(dense, x):
        return x @ dense.kernel.numpy() + dense.bias.numpy()

    def heads(dense):
        projected = project(dense, x).reshape(*x.shape[:2], HEADS, -1)
        return projected.transpose(0, 2, 1, 3)

    attended = reference.local_attention(
        heads(layer.query),
        heads(layer.key),
        heads(layer.value),
        chunk_length=layer.chunk_length,
        num_chunks_before=layer.num_chunks_before,
        num_chunks_after=layer.num_chunks_after,
        causal=layer.causal,
        mask=mask,
        wrap=layer.wrap,
    )
    merged = attended.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
    return project(layer.attention_output, merged)


def test_layer_is_at_home_in_keras():
    options = {"num_chunks_after": 1, "wrap": True, "dropout": 0.1}
    check_layer(
        lambda dtype=None: make_layer(dtype=dtype, **options),
        (BATCH, 13, DIM),
        masks=[make_mask(13)],
    )


@pytest.mark.covering(1)
@pytest.mark.parametrize(
    "options",
    [
        {"causal": True},
        {"num_chunks_before": 2, "num_chunks_after": 1},
        {"num_chunks_before": 0},
        {"causal": True, "wrap": True},
        {"num_chunks_after": 1, "wrap": True},
    ],
)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_equations(options, length, masked):
    layer = make_layer(dtype="float64", **options)
    x = make_inputs(length, "float64")
    mask = make_mask(length) if masked else None
    output = layer(x, mask=mask)
    np.testing.assert_allclose(output, equations(layer, x, mask), atol=1e-12)


@pytest.mark.parametrize("length", [5, 8, 23])
def test_what_comes_later_changes_nothing(length):
    layer = make_layer(causal=True)
    x = make_inputs(length)
    expected = layer(x)
    for kept in range(1, length):
        changed = make_inputs(length, seed=kept)
        changed[:, :kept] = x[:, :kept]
        added = np.concatenate([changed, changed], axis=1)
        for other in (changed, added, x[:, :kept]):
            np.testing.assert_allclose(
                layer(other)[:, :kept], expected[:, :kept], atol=1e-6
            )


@pytest.mark.parametrize("wrap", [False, True])
def test_gradient_by_what_comes_later_is_zero(wrap):
    layer = make_layer(causal=True, wrap=wrap)
    x = tf.constant(make_inputs(13))
    for last in (0, 3, 4, 7, 10):
        with tf.GradientTape() as tape:
            tape.watch(x)
            earlier = tf.reduce_sum(layer(x)[:, : last + 1] ** 2)
        gradient = tape.gradient(earlier, x).numpy()
        assert (gradient[:, last + 1 :] == 0).all()
        assert (gradient[:, last] != 0).any()


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"wrap": True}])
@pytest.mark.parametrize("length", [5, 13])
def test_contents_of_masked_tokens_change_nothing(options, length):
    layer = make_layer(**options)
    x, mask = make_inputs(length), make_mask(length)
    other = np.where(mask[..., None], x, 1e3 * make_inputs(length, seed=1))
    expected, output = layer(x, mask=mask), layer(other, mask=mask)
    np.testing.assert_allclose(output[mask], expected[mask], atol=1e-6)
    nothing = layer.attention_output.bias.numpy()
    np.testing.assert_allclose(output[~mask] - nothing, 0, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [1, 3, 4, 12])
def test_the_amount_of_padding_changes_nothing(causal, padding):
    layer = make_layer(causal=causal, num_chunks_after=1)
    x = make_inputs(11)
    padded = np.concatenate([x, make_inputs(padding, seed=1)], axis=1)
    mask = np.arange(11 + padding) < 11
    output = layer(padded, mask=np.array([mask] * BATCH))
    np.testing.assert_allclose(output[:, :11], layer(x), atol=1e-6)


@pytest.mark.parametrize("policy", ["bfloat16", "float16", "mixed_float16"])
def test_first_causal_token_gets_its_own_value(policy):
    layer = make_layer(causal=True, dtype=policy)
    x = tf.constant(make_inputs(13))
    output = layer(x)
    own = layer.attention_output(layer.value(tf.cast(x, layer.compute_dtype)))
    np.testing.assert_array_equal(
        *(tf.cast(one[:, 0], "float32") for one in (output, own))
    )


def test_dropout_is_of_weights_and_in_training_alone():
    layer = make_layer(dropout=0.5)
    x = make_inputs(13)
    expected = layer(x).numpy()
    np.testing.assert_array_equal(layer(x, training=False), expected)
    run = tf.function(lambda: layer(x, training=True), autograph=False)
    outputs = [run().numpy() for _ in range(100)]
    assert not np.allclose(outputs[0], outputs[1])
    # Kept weights are scaled up: the mean is that of no dropout.
    error = np.std(outputs, axis=0) / np.sqrt(len(outputs))
    assert (abs(np.mean(outputs, axis=0) - expected) < 5 * error).all()
    fresh = make_layer(dropout=0.5)
    fresh.build(x.shape)
    for mine, other in zip(
        fresh.trainable_variables, layer.trainable_variables, strict=True
    ):
        mine.assign(other)
    np.testing.assert_allclose(fresh(x, training=True), outputs[0], atol=1e-6)


@pytest.mark.parametrize(
    "options, received",
    [
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_heads": "2"}, "num_heads='2'"),
        ({"key_dim": 2.5}, "key_dim=2.5"),
        ({"value_dim": -2}, "value_dim=-2"),
        ({"chunk_length": 0}, "chunk_length=0"),
        ({"num_chunks_before": -1}, "num_chunks_before=-1"),
        ({"num_chunks_after": True}, "num_chunks_after=True"),
        ({"dropout": 1}, "dropout=1"),
        ({"dropout": "0.1"}, "dropout='0.1'"),
    ],
)
def test_refuses_bad_arguments(options, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        LocalSelfAttention(**{"num_heads": 2, "key_dim": 3, **options})


@pytest.mark.parametrize("shape", [(2, 7), (7,), (2, 3, 5, 7), (2, 3, None)])
def test_refuses_inputs_of_a_wrong_rank(shape):
    with pytest.raises(ValueError, match=r"Received: input_shape=\("):
        make_layer()(keras.KerasTensor(shape))
