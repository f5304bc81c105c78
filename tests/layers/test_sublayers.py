"""Layers of layers: frozen, quantized and shared parts in their configs."""

import json

import keras
import numpy as np
import pytest

from keras_reformer.layers import (
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    PreNormalization,
    RelativePositionBias,
    ReversibleBlock,
    ReversibleSequence,
    RotaryEmbedding,
)
from keras_reformer.layers.scan_signature import known_signature

X = np.random.default_rng(0).normal(size=(2, 16, 8)).astype("float32")


def local(**options):
    return LocalSelfAttention(2, 4, chunk_length=8, **options)


def lsh(**options):
    return LSHSelfAttention(2, 4, chunk_length=8, num_buckets=4, **options)


def sequence_of(*attentions):
    blocks = [ReversibleBlock(layer, FeedForward(8)) for layer in attentions]
    return ReversibleSequence(blocks, merge="mean")


def shared_bias():
    bias = RelativePositionBias(2)
    return sequence_of(local(position_bias=bias), lsh(position_bias=bias))


def shared_rotation():
    rotary = RotaryEmbedding()
    return sequence_of(
        local(rotary_embedding=rotary), lsh(rotary_embedding=rotary)
    )


def shared_branch():
    """One dense layer in all four branches of two blocks."""
    dense = keras.layers.Dense(8)
    return ReversibleSequence(
        [
            ReversibleBlock(PreNormalization(dense), dense),
            ReversibleBlock(dense, PreNormalization(dense)),
        ],
        merge="mean",
    )


def shared_attention():
    attention = local()
    return sequence_of(attention, attention)


def shared_block():
    block = ReversibleBlock(local(), FeedForward(8))
    return ReversibleSequence([block, block], merge="mean")


SHARED = [
    shared_bias,
    shared_rotation,
    shared_branch,
    shared_attention,
    shared_block,
]


def make_model(*layers):
    x = inputs = keras.Input(X.shape[1:])
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def from_file(model, path):
    model.save(path)
    return keras.models.load_model(path)


def from_config(model, path):
    return type(model).from_config(json.loads(json.dumps(model.get_config())))


COPIES = {
    "model.keras": from_file,
    "model.h5": from_file,
    "from_config": from_config,
    "clone": lambda model, path: keras.models.clone_model(model),
}


@pytest.mark.covering(1)
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("make", SHARED)
def test_shared_layers_stay_shared(make, way, tmp_path):
    model = make_model(make())
    copy = COPIES[way](model, tmp_path / way)
    if "." not in way:
        copy.set_weights(model.get_weights())
    assert len(copy.weights) == len(model.weights)
    np.testing.assert_allclose(copy(X), model(X), atol=1e-6)
    blocks = [layer.blocks for layer in (model.layers[1], copy.layers[1])]
    pairs = [_pair(*each) for each in blocks]
    assert pairs[0] == pairs[1] and any(pairs[0])


def _pair(one, other):
    """Which parts of two blocks are one layer."""
    parts = ("position_bias", "rotary_embedding", "layer")
    found = [one is other]
    for a in one.branches:
        for b in other.branches:
            found.append(a is b)
            found += [
                getattr(a, name, a) is getattr(b, name, b) for name in parts
            ]
    return found


def test_layers_of_a_users_model_share_a_bias(tmp_path):
    bias = RelativePositionBias(2)
    model = make_model(local(position_bias=bias), lsh(position_bias=bias))
    loaded = from_file(model, tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    one, other = loaded.layers[1:]
    assert one.position_bias is other.position_bias
    np.testing.assert_allclose(loaded(X), model(X), atol=1e-6)


@pytest.mark.parametrize("way", ["model.h5", "clone"])
def test_only_keras_files_hold_what_layers_of_a_model_share(way, tmp_path):
    bias = RelativePositionBias(2)
    model = make_model(local(position_bias=bias), lsh(position_bias=bias))
    copy = COPIES[way](model, tmp_path / way)
    assert len(copy.weights) == len(model.weights) + 1
    if way == "model.h5":
        np.testing.assert_allclose(copy(X), model(X), atol=1e-6)


def test_what_is_not_shared_has_no_mark():
    model = make_model(sequence_of(local(), lsh()))
    assert "shared_object_id" not in json.dumps(model.get_config())


# --- Layers made from options ---

LAYERS = {
    "attention": lambda: MultiHeadAttention(2, 4),
    "lsh": lsh,
    "feed_forward": lambda: FeedForward(8, gated=True),
    "branch": lambda: PreNormalization(local(), dropout=0.1),
    "sequence": lambda: sequence_of(local(), lsh()),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_frozen_before_it_is_built(kind, tmp_path):
    layer = LAYERS[kind]()
    layer.trainable = False
    model = make_model(layer)
    assert not model.trainable_weights
    copy = from_file(model, tmp_path / "model.keras")
    assert not copy.trainable_weights
    config = copy.layers[1].get_config()
    assert "sublayers" not in config and not config["trainable"]


def test_a_part_that_trains_in_a_frozen_layer(tmp_path):
    layer = lsh()
    model = make_model(layer)
    layer.trainable = False
    layer.value.trainable = True
    assert layer.get_config()["sublayers"] == {"value/trainable": True}
    copy = from_file(model, tmp_path / "model.keras")
    assert [v.path.split("/")[-2] for v in copy.trainable_weights] == ["value"]


def test_a_config_before_the_layer_is_built():
    layer = lsh()
    layer.build((None, None, 8))
    layer.value.trainable = False
    config = layer.get_config()
    unbuilt = LSHSelfAttention.from_config(config)
    assert unbuilt.get_config() == config


def test_rates_set_on_a_built_layer():
    branch = PreNormalization(FeedForward(8))
    branch.build((None, None, 8))
    branch.dropout_layer.rate = 0.5
    copy = PreNormalization.from_config(branch.get_config())
    assert copy.dropout_layer.rate == 0.5


def test_rotations_do_not_keep_blocks_from_being_repeated():
    layers = [lsh(name="lsh"), lsh(name="lsh")]
    for layer in layers:
        layer.build((None, None, 8))
    layers[0].rotations = np.ones((2, 4, 4, 2))
    first, second = map(known_signature, layers)
    assert first == second is not None
