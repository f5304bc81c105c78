"""`num_key_value_heads`: heads of queries that share keys and values."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import convert, planning
from keras_reformer.layers import (
    AlibiBias,
    CrossAttention,
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    RotaryEmbedding,
)
from keras_reformer.models import ReformerBackbone, ReformerSeq2Seq
from tests.support import stepwise, tiny, tiny_pairs
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


# --- Attention to another sequence ---


def cross_gradients(layer, x, context):
    with tf.GradientTape() as tape:
        tape.watch((x, context))
        outputs = layer(x, context, training=True)
        loss = tf.reduce_sum(tf.sin(outputs))
    kernels = [layer.key.kernel.value, layer.value.kernel.value]
    return outputs, *tape.gradient(loss, [x, context, *kernels])


def make_cross(**options):
    layer = CrossAttention(
        HEADS,
        SIZE,
        value_dim=5,
        dropout=0.2,
        seed=3,
        dtype="float64",
        **options,
    )
    layer.build((4, 23, DIM), (4, 9, DIM))
    return layer


def test_cross_attention_is_full_attention_with_equal_heads():
    layer, full = make_cross(num_key_value_heads=SHARED), make_cross()
    full.query.kernel.assign(layer.query.kernel)
    full.attention_output.kernel.assign(layer.attention_output.kernel)
    full.key.kernel.assign(repeated(layer.key.kernel, SIZE))
    full.value.kernel.assign(repeated(layer.value.kernel, 5))
    x, context = make_inputs(), tf.constant(make_inputs(9))
    *found, key, value = cross_gradients(layer, tf.constant(x), context)
    *expected, full_key, full_value = cross_gradients(
        full, tf.constant(x), context
    )
    for one, other, dim in ((key, full_key, SIZE), (value, full_value, 5)):
        by_head = np.reshape(other, (DIM, SHARED, HEADS // SHARED, dim))
        found.append(one)
        expected.append(by_head.sum(axis=2).reshape(DIM, -1))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_the_cache_of_a_context_holds_shared_heads_alone():
    layer = make_cross(num_key_value_heads=SHARED)
    x, context = make_inputs(), make_inputs(9)
    mask = np.arange(9) < np.array([[9], [2], [5], [0]])
    expected = layer(x, context, context_mask=mask)
    valid = np.ones(x.shape[:2], bool)
    _, cache = layer.prefill(x, valid, 30, context, mask)
    assert cache.key.shape == (4, SHARED, 9, SIZE)
    assert cache.value.shape == (4, SHARED, 9, 5)
    # One token, as in decoding, and several.
    for part in (slice(3, 4), slice(0, 7)):
        found, _ = layer.decode(x[:, part], cache, None)
        np.testing.assert_allclose(found, expected[:, part], atol=1e-12)


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


def cache_sizes(model):
    """Bytes of the caches of a block's attention to itself and to a source."""
    inputs = tiny_pairs.make_inputs(masks=False)
    source, target = inputs["encoder_token_ids"], inputs["decoder_token_ids"]
    seen = np.ones_like(target, bool), np.ones_like(source, bool)
    _, caches = model.backbone.prefill(target, seen[0], 20, source, seen[1])
    own, cross, _ = caches[0]
    sizes = [
        sum(np.asarray(x).nbytes for x in (cache.key, cache.value))
        for cache in (own, cross)
    ]
    return np.array(sizes)


def test_encoder_decoders_have_smaller_caches_and_files(tmp_path):
    model = tiny_pairs.make_model(**OPTIONS)
    full = tiny_pairs.make_model(num_heads=HEADS)
    np.testing.assert_array_equal(
        HEADS * cache_sizes(model), SHARED * cache_sizes(full)
    )
    inputs = tiny_pairs.make_inputs()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    model.save_to_preset(tmp_path / "preset")
    loaded = ReformerSeq2Seq.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


@pytest.mark.slow
def test_encoder_decoders_generate_from_smaller_caches():
    model = tiny_pairs.make_model(**OPTIONS)
    found = model.generate(tiny_pairs.REQUEST, 7, "greedy", verbose=False)
    expected = tiny_pairs.greedily(model, tiny_pairs.REQUEST, 7)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_encoder_decoders_from_before_share_no_heads_across():
    """Their files have keys and values for each head of queries."""
    model = tiny_pairs.make_model(**OPTIONS, cross_num_key_value_heads=HEADS)
    backbone = model.backbone
    own, cross = cache_sizes(model) / cache_sizes(
        tiny_pairs.make_model(num_heads=HEADS)
    )
    assert (own, cross) == (SHARED / HEADS, 1)
    config = backbone.get_config()
    del config["cross_num_key_value_heads"]
    before = type(backbone).from_config(config)
    assert before.get_config() == backbone.get_config()
    before.set_weights(backbone.get_weights())
    inputs = tiny_pairs.make_inputs()
    np.testing.assert_array_equal(before(inputs), backbone(inputs))


# --- Bad input ---


@pytest.mark.parametrize("heads", [0, 3, 8, 1.5, True])
def test_refuses_what_does_not_divide_heads(heads):
    for make in (LOCAL, EXACT, functools.partial(CrossAttention, HEADS, SIZE)):
        with pytest.raises(ValueError, match="Received: num_key_value_heads="):
            make(num_key_value_heads=heads)
    options = {**tiny.SIZES, **OPTIONS, "num_key_value_heads": heads}
    with pytest.raises(ValueError, match="Received: num_key_value_heads="):
        ReformerBackbone(**options)
    options = {**tiny_pairs.SIZES, "cross_num_key_value_heads": heads}
    with pytest.raises(ValueError, match="Received: cross_num_key_value_heads"):
        ReformerSeq2Seq(**{**options, "num_heads": HEADS})


def test_refuses_shared_query_keys():
    with pytest.raises(ValueError, match="larger `value_dim`"):
        EXACT(num_key_value_heads=SHARED, share_query_key=True)
    with pytest.raises(ValueError, match="larger `value_dim`"):
        LSHSelfAttention(HEADS, SIZE, num_key_value_heads=SHARED)
