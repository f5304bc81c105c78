"""Whoever keeps a trace of layers is told when it no longer holds."""

import keras
import numpy as np
import pytest

from keras_reformer.layers import (
    FeedForward,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)
from keras_reformer.layers.trace_version import TraceVersion

SHAPE = (2, 6, 4)


def make_layer():
    """A stack of one LSH block, which has been called."""
    attention = LSHSelfAttention(
        2, 4, num_hashes=1, num_buckets=4, chunk_length=2, seed=0
    )
    block = ReversibleBlock(
        PreNormalization(attention), PreNormalization(FeedForward(8))
    )
    layer = ReversibleSequence([block])
    layer(np.ones(SHAPE))
    return layer


def attention_of(layer):
    return layer.blocks[0].attention.layer


def feed_forward_of(layer):
    return layer.blocks[0].feed_forward.layer


def make_rotations(seed=0):
    return np.random.default_rng(seed).normal(size=(2, 4, 1, 2))


def swap_branches(layer):
    block = layer.blocks[0]
    block.attention, block.feed_forward = block.feed_forward, block.attention


def swap_projections(layer):
    layer = attention_of(layer)
    layer.query_key, layer.value = layer.value, layer.query_key


def load_other_settings(layer, folder):
    other = make_layer()
    attention_of(other).num_hashes = 2
    model_of(other).save_weights(folder / "model.weights.h5")
    model_of(layer).load_weights(folder / "model.weights.h5")


def load_other_rotations(layer, folder):
    other = make_layer()
    attention_of(other).rotations = make_rotations()
    model_of(other).save_weights(folder / "model.weights.h5")
    model_of(layer).load_weights(folder / "model.weights.h5")


def model_of(layer):
    return keras.Sequential([keras.Input(SHAPE[1:]), layer])


def attribute(get, name, value):
    return lambda layer: setattr(get(layer), name, value)


CHANGES = {
    "num_hashes": attribute(attention_of, "num_hashes", 2),
    "exact_below": attribute(attention_of, "exact_below", 50),
    "rotations": attribute(attention_of, "rotations", make_rotations()),
    "merge": attribute(lambda layer: layer, "merge", "mean"),
    "scan_blocks": attribute(lambda layer: layer, "scan_blocks", False),
    "activation": attribute(feed_forward_of, "activation", keras.ops.tanh),
    "a sublayer": swap_projections,
    "a policy": attribute(feed_forward_of, "dtype_policy", "mixed_bfloat16"),
    "lora": lambda layer: feed_forward_of(layer).intermediate.enable_lora(2),
    "quantization": lambda layer: attention_of(layer).value.quantize("int8"),
    "branches": swap_branches,
}
LOADED = {"settings": load_other_settings, "rotations": load_other_rotations}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_trace_holds_fixed_changes_the_version(change):
    layer, version = make_layer(), TraceVersion()
    before = version.of(layer)
    assert version.of(layer) == before
    change(layer)
    after = version.of(layer)
    assert after != before
    assert version.of(layer) == after


@pytest.mark.parametrize("load", LOADED.values(), ids=LOADED)
def test_weights_that_bring_settings_change_the_version(load, tmp_path):
    layer, version = make_layer(), TraceVersion()
    before = version.of(layer)
    load(layer, tmp_path)
    assert version.of(layer) != before


def test_values_alone_leave_the_version(tmp_path):
    layer, version = make_layer(), TraceVersion()
    model = model_of(layer)
    model.save_weights(tmp_path / "model.weights.h5")
    # The first time it sets attributes of Keras's `Dense`.
    model.load_weights(tmp_path / "model.weights.h5")
    before = version.of(layer)
    layer.set_weights([2 * w for w in layer.get_weights()])
    model.load_weights(tmp_path / "model.weights.h5")
    model.compile(keras.optimizers.SGD(), "mse", run_eagerly=True)
    model.fit(np.ones(SHAPE), np.ones((2, 6, 8)), verbose=0)
    layer(np.ones(SHAPE), training=True)
    assert version.of(layer) == before


def test_settings_in_turn_have_versions_of_their_own():
    """Arrays that are freed leave their addresses to those that follow."""
    layer, version = make_layer(), TraceVersion()
    versions, addresses = [], []
    for seed in range(20):
        attention_of(layer).rotations = None
        attention_of(layer).rotations = make_rotations(seed)
        addresses.append(id(attention_of(layer).rotations))
        versions.append(version.of(layer))
    assert len(set(versions)) == 20
    # As long as each is asked about, it is kept until the next one is there.
    assert all(a != b for a, b in zip(addresses, addresses[1:], strict=False))


def test_no_two_layers_share_a_version():
    layers = make_layer(), make_layer()
    first, second = (TraceVersion().of(layer) for layer in layers)
    assert first != second
