import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer import LSHSelfAttention, ReformerBackbone
from keras_reformer.layers.short_convolution import ShortConvolution
from keras_reformer.ops.attention.short_convolution import short_convolution
from tests.support import reference, tiny
from tests.support.layer_checks import check_layer

SHAPE = (2, 11, 6)


def make_inputs(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def convolved(x, kernel):
    """`y[t] = sum_i kernel[i] * x[t - i]`, position by position."""
    y = np.zeros_like(x)
    for t in range(x.shape[1]):
        for i in range(min(t + 1, len(kernel))):
            y[:, t] += kernel[i] * x[:, t - i]
    return y


def make_layer(kernel_size, dtype="float64"):
    layer = ShortConvolution(kernel_size, dtype=dtype)
    layer.build(SHAPE)
    layer.depthwise_kernel.assign(make_inputs((kernel_size, SHAPE[-1]), seed=1))
    return layer


def test_layer_is_at_home_in_keras():
    mask = np.arange(SHAPE[1]) < np.array([[SHAPE[1]], [4]])
    check_layer(lambda dtype=None: ShortConvolution(3, dtype=dtype), SHAPE)
    check_layer(
        lambda dtype=None: ShortConvolution(2, dtype=dtype),
        SHAPE,
        masks=[mask],
    )


@pytest.mark.parametrize("kernel_size", [1, 2, 4, 13])
def test_equals_the_reference(kernel_size, execution):
    layer, x = make_layer(kernel_size), make_inputs()
    expected = convolved(x, np.asarray(layer.depthwise_kernel))
    np.testing.assert_allclose(execution(layer)(x), expected, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [1, 2, 13])
def test_gradients_equal_the_reference(kernel_size, execution):
    x, d_y = make_inputs(), make_inputs(seed=3)
    kernel = make_inputs((kernel_size, SHAPE[-1]), seed=1)

    @execution
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            weights = tf.constant(kernel)
            tape.watch(weights)
            y = short_convolution(x, weights)
        return tape.gradient(y, (x, weights), tf.constant(d_y))

    d_x, d_kernel = np.zeros_like(x), np.zeros_like(kernel)
    for t in range(x.shape[1]):
        for i in range(min(t + 1, kernel_size)):
            d_x[:, t - i] += kernel[i] * d_y[:, t]
            d_kernel[i] += (x[:, t - i] * d_y[:, t]).sum(axis=0)
    found = gradients(tf.constant(x))
    np.testing.assert_allclose(found[0], d_x, atol=1e-12)
    np.testing.assert_allclose(found[1], d_kernel, atol=1e-12)


def test_masked_positions_count_as_zeros():
    layer, x = make_layer(3), make_inputs()
    mask = np.random.default_rng(2).random(SHAPE[:2]) < 0.6
    expected = convolved(
        x * mask[..., None], np.asarray(layer.depthwise_kernel)
    )
    np.testing.assert_allclose(layer(x, mask=mask), expected, atol=1e-12)


def test_it_starts_as_a_sum():
    x = make_inputs()
    x[:, 5] = x[:, 4]
    y = np.asarray(ShortConvolution(2, dtype="float64")(x))
    np.testing.assert_allclose(y[:, 1:], x[:, 1:] + x[:, :-1])


def test_lsh_attention_hashes_and_attends_to_convolved_query_keys():
    layer = LSHSelfAttention(
        2,
        3,
        num_buckets=4,
        chunk_length=4,
        causal=True,
        query_key_kernel_size=3,
        seed=0,
        dtype="float64",
    )
    x = make_inputs()
    layer.build(x.shape)
    layer.convolution.depthwise_kernel.assign(make_inputs((3, 6), seed=1))

    def heads(vectors):
        return vectors.reshape(*x.shape[:2], 2, 3).transpose(0, 2, 1, 3)

    query_key = x @ np.asarray(layer.query_key.kernel)
    attended = reference.lsh_attention(
        heads(
            convolved(query_key, np.asarray(layer.convolution.depthwise_kernel))
        ),
        heads(x @ np.asarray(layer.value.kernel)),
        np.asarray(layer.hash(x)),
        chunk_length=4,
        causal=True,
    )
    merged = attended.transpose(0, 2, 1, 3).reshape(x.shape)
    expected = merged @ np.asarray(layer.attention_output.kernel)
    np.testing.assert_allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["call", "hash"])
def test_padding_in_front_changes_nothing(method):
    layer = LSHSelfAttention(
        2, 3, num_buckets=4, chunk_length=4, query_key_kernel_size=3, seed=0
    )
    x = make_inputs().astype("float32")
    layer.build(x.shape)
    padded = np.concatenate([7 * x[:, :4], x], axis=1)
    mask = np.broadcast_to(np.arange(15) >= 4, padded.shape[:2])
    function = {"call": layer, "hash": layer.hash}[method]
    axis = {"call": 1, "hash": 3}[method]
    expected = np.asarray(function(x))
    found = np.asarray(function(padded, mask=mask))
    found = np.take(found, range(4, 15), axis=axis)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- Models ---


@pytest.mark.parametrize(
    "options, kernel_size",
    [
        ({}, 2),
        ({"scope": "chunk"}, 1),
        ({"scope": "chunk", "query_key_kernel_size": 3}, 3),
        ({"query_key_kernel_size": 1}, 1),
    ],
    ids=str,
)
def test_models_of_bucket_scope_have_one(options, kernel_size):
    backbone = tiny.make_backbone(**options)
    layer = backbone.lsh_layers()[1]
    assert layer.query_key_kernel_size == kernel_size
    assert (layer.convolution is not None) == (kernel_size > 1)
    copy = ReformerBackbone.from_config(backbone.get_config())
    assert copy.lsh_layers()[1].query_key_kernel_size == kernel_size


def test_older_configs_have_none():
    config = tiny.make_backbone().get_config()
    del config["query_key_kernel_size"]
    copy = ReformerBackbone.from_config(config)
    assert copy.lsh_layers()[1].convolution is None


def test_the_published_model_has_none():
    model = keras_reformer.ReformerCausalLM(
        backbone=tiny.make_backbone(
            scope="chunk", wrap=True, query_key_kernel_size=2
        )
    )
    with pytest.raises(ValueError, match="query_key_kernel_size=2"):
        keras_reformer.convert.to_huggingface(model)


@pytest.mark.parametrize("kernel_size", [0, 1.5, None])
def test_kernel_sizes_are_checked(kernel_size):
    with pytest.raises(ValueError, match="Received: query_key_kernel_size="):
        LSHSelfAttention(2, 3, query_key_kernel_size=kernel_size)


def test_the_convolution_learns_in_a_stack_that_recomputes():
    gradients = []
    ids = np.random.default_rng(0).integers(0, 11, (2, 60))
    for recompute in (True, False):
        backbone = tiny.make_backbone(recompute=recompute, dtype="float64")
        keras.utils.set_random_seed(0)
        backbone = ReformerBackbone.from_config(backbone.get_config())
        kernel = backbone.lsh_layers()[1].convolution.depthwise_kernel
        gradients.append(gradient_of(backbone, kernel, ids))
    assert np.abs(gradients[0]).min() > 0
    np.testing.assert_allclose(*gradients, rtol=1e-8)


def gradient_of(model, variable, ids):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ids, training=True)[..., 0] ** 3)
    return np.asarray(tape.gradient(loss, variable.value))
