"""`num_key_value_heads`: heads of queries that share keys and values."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import convert, planning
from keras_reformer.layers import (
    AlibiBias,
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    RotaryEmbedding,
)
from keras_reformer.models import ReformerBackbone
from tests.support import stepwise, tiny
from tests.support.layer_checks import check_layer

HEADS, SHARED, DIM, SIZE = 4, 2, 12, 6
LOCAL = functools.partial(LocalSelfAttention, HEADS, SIZE, chunk_length=5)
EXACT = functools.partial(MultiHeadAttention, HEADS, SIZE, use_bias=False)
KINDS = {"local": LOCAL, "exact": EXACT}


def make_inputs(length=23):
    rng = np.random.default_rng(1)
    shape = len(stepwise.LENGTHS), length, DIM
    return rng.normal(size=shape).astype("float64")


def repeated(kernel, dim):
    """Columns of heads, each for as many heads as share it."""
    by_head = kernel.numpy().reshape(DIM, SHARED, dim)
    return np.repeat(by_head, HEADS // SHARED, axis=1).reshape(DIM, -1)


def gradients(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        loss = tf.reduce_sum(tf.sin(outputs))
    kernels = [layer.query.kernel, layer.key.kernel, layer.value.kernel]
    found = tape.gradient(loss, [x, *(kernel.value for kernel in kernels)])
    return outputs, *found


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_is_full_attention_with_equal_heads(make):
    """Dropout and biases are those of each head of queries."""
    options = {"dropout": 0.2, "seed": 3, "dtype": "float64", "value_dim": 5}
    bias = AlibiBias(HEADS, dtype="float64")
    options |= {"causal": True, "position_bias": bias}
    layer = make(num_key_value_heads=SHARED, **options)
    full = make(**options)
    x = tf.constant(make_inputs())
    for each in (layer, full):
        each.build(x.shape)
    full.query.kernel.assign(layer.query.kernel)
    full.attention_output.kernel.assign(layer.attention_output.kernel)
    full.key.kernel.assign(repeated(layer.key.kernel, SIZE))
    full.value.kernel.assign(repeated(layer.value.kernel, 5))
    *found, key, value = gradients(layer, x)
    *expected, full_key, full_value = gradients(full, x)
    for one, other, dim in ((key, full_key, SIZE), (value, full_value, 5)):
        by_head = np.reshape(other, (DIM, SHARED, HEADS // SHARED, dim))
        found.append(one)
        expected.append(by_head.sum(axis=2).reshape(DIM, -1))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_is_the_attention_of_keras():
    x = make_inputs()
    theirs = keras.layers.GroupQueryAttention(
        SIZE, HEADS, SHARED, bias_initializer="normal", dtype="float64"
    )
    expected = theirs(x, x)
    layer = EXACT(num_key_value_heads=SHARED, dtype="float64")
    layer = type(layer).from_config({**layer.get_config(), "use_bias": True})
    weights = {
        "_".join(v.path.split("/")[-2:]).removeprefix("attention_"): v
        for v in theirs.weights
        if "seed" not in v.path
    }
    convert.from_multi_head_attention(weights, layer)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_the_cache_holds_shared_heads_alone(make):
    layer = make(
        num_key_value_heads=SHARED,
        causal=True,
        position_bias=AlibiBias(HEADS, dtype="float64"),
        rotary_embedding=RotaryEmbedding(dtype="float64"),
        dtype="float64",
        value_dim=5,
    )
    x = make_inputs()
    layer.build(x.shape)
    found = stepwise.decode(layer, x, stepwise.LENGTHS)
    assert stepwise.gap(found, layer(x)) < 1e-12
    full = make(causal=True, dtype="float64", value_dim=5)
    sizes = []
    full.build(x.shape)
    for each in (layer, full):
        _, cache = each.prefill(x, np.ones(x.shape[:2], bool), 30)
        sizes.append(sum(np.asarray(part).nbytes for part in cache))
        assert cache.key.shape[1] == each.num_key_value_heads
        assert cache.value.shape[1] == each.num_key_value_heads
    assert sizes[0] * HEADS == sizes[1] * SHARED


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_layer_is_at_home_in_keras(make):
    def make_layer(dtype=None):
        return make(num_key_value_heads=SHARED, dtype=dtype)

    check_layer(make_layer, (2, 7, DIM), dynamic_length=False, trains=False)


# --- Models ---

OPTIONS = {"num_heads": HEADS, "num_key_value_heads": SHARED}


class Hidden:
    """A backbone, with the signature of a layer's `decode`."""

    def __init__(self, backbone):
        self.prefill, self.decode = backbone.prefill, backbone.decode


def test_models_decode_from_smaller_caches():
    model = tiny.make_spread_model(position_bias="relative", **OPTIONS)
    backbone, ids = model.backbone, tiny.make_ids(len(stepwise.LENGTHS), 31)
    found = stepwise.decode(Hidden(backbone), ids, stepwise.LENGTHS)
    assert stepwise.gap(found, backbone(ids)) < 1e-5
    local, lsh = (block.attention.layer for block in backbone.sequence.blocks)
    assert (local.num_heads, local.num_key_value_heads) == (HEADS, SHARED)
    assert (lsh.num_heads, lsh.value_dim) == (SHARED, 2 * lsh.key_dim)
    planned = planning.memory.resolve(
        {**tiny.SIZES, **OPTIONS, "position_bias": "relative"}
    )
    found = planning.sizes.count_parameters(planned, head=False)
    assert found == backbone.count_params()


def test_configs_from_before_and_copies():
    options = {**tiny.SIZES, **OPTIONS}
    config = ReformerBackbone(**options).get_config()
    assert config["num_key_value_heads"] == SHARED
    again = ReformerBackbone.from_config(config)
    assert again.get_config() == config
    del config["num_key_value_heads"]
    before = ReformerBackbone.from_config(config).get_config()
    assert before["num_key_value_heads"] == HEADS


# --- Bad input ---


@pytest.mark.parametrize("heads", [0, 3, 8, 1.5, True])
def test_refuses_what_does_not_divide_heads(heads):
    for make in (LOCAL, EXACT):
        with pytest.raises(ValueError, match="Received: num_key_value_heads="):
            make(num_key_value_heads=heads)
    options = {**tiny.SIZES, **OPTIONS, "num_key_value_heads": heads}
    with pytest.raises(ValueError, match="Received: num_key_value_heads="):
        ReformerBackbone(**options)


def test_refuses_shared_query_keys():
    with pytest.raises(ValueError, match="larger `value_dim`"):
        EXACT(num_key_value_heads=SHARED, share_query_key=True)
    with pytest.raises(ValueError, match="larger `value_dim`"):
        LSHSelfAttention(HEADS, SIZE, num_key_value_heads=SHARED)
