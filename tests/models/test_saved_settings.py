"""What was set on single layers of a model, in its copies and files."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_reformer.layers import (
    FeedForward,
    LSHSelfAttention,
    MultiHeadAttention,
    PreNormalization,
    RelativePositionBias,
    ReversibleBlock,
    ReversibleSequence,
)
from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerQuestionAnswering,
)
from tests.support import earlier, tiny
from tests.support.layer_checks import sublayers

FILES = Path(__file__).parent / "files"
IDS = tiny.make_ids()
MASKED = {"token_ids": IDS, "padding_mask": np.ones(IDS.shape, bool)}
# Rotations are drawn: nothing but the layer itself knows from what.
OPTIONS = {**tiny.SIZES, "seed": None, "attention_layers": ("lsh",)}


def make_users_model():
    """A Functional model of Keras's layers and of ours."""
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(tiny.VOCABULARY, 16)(inputs)
    lsh = {"num_buckets": 4, "chunk_length": 8}
    bias = RelativePositionBias(2, name="bias")
    x = LSHSelfAttention(2, 4, position_bias=bias, name="first", **lsh)(x)
    blocks = [
        ReversibleBlock(
            PreNormalization(LSHSelfAttention(2, 4, **lsh)),
            PreNormalization(FeedForward(8)),
        )
        for _ in range(2)
    ]
    x = ReversibleSequence(blocks, merge="mean")(x)
    x = MultiHeadAttention(2, 4, name="exact")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(x))


MODELS = {
    "causal_lm": lambda: ReformerCausalLM(**OPTIONS),
    "users": make_users_model,
}
HEADS = {
    "tied": lambda: ReformerCausalLM(
        **{**OPTIONS, **tiny.SMALLEST}, merge="mean", tie_embeddings=True
    ),
    "masked_lm": lambda: ReformerMaskedLM(**{**OPTIONS, **tiny.SMALLEST}),
    "classifier": lambda: ReformerClassifier(
        num_classes=3, **{**OPTIONS, **tiny.SMALLEST}
    ),
    "question_answering": lambda: ReformerQuestionAnswering(
        **{**OPTIONS, **tiny.SMALLEST}
    ),
}


def layers_of(model, kind):
    """All layers of a class, wherever they are in a model."""
    found = [x for x in sublayers(model) if isinstance(x, kind)]
    return sorted(found, key=lambda layer: layer.path)


def set_settings(model):
    """Sets all that may be set on a built layer that hashes."""
    first, second = layers_of(model, LSHSelfAttention)[:2]
    first.num_hashes = 3
    columns = np.sum(first.num_buckets) // 2
    shape = (first.num_heads, first.key_dim, 3, columns)
    first.rotations = np.random.default_rng(0).normal(size=shape)
    second.exact_below = 17
    second.num_hashes = 1


def freeze_parts(model):
    """Freezes a block's parts, at several depths."""
    layers_of(model, LSHSelfAttention)[0].trainable = False
    layers_of(model, PreNormalization)[-1].normalization.trainable = False
    layers_of(model, FeedForward)[1].intermediate.trainable = False
    model.layers[-1].trainable = False


def enable_lora(model):
    rng = np.random.default_rng(0)
    for layer in layers_of(model, (keras.layers.Dense, keras.layers.Embedding)):
        layer.enable_lora(2)
        if isinstance(layer, keras.layers.Dense):
            kernel = layer.lora_kernel_b
            kernel.assign(rng.normal(size=kernel.shape))


CHANGES = {
    "settings": set_settings,
    "frozen": freeze_parts,
    "lora": enable_lora,
    **{
        mode: lambda model, mode=mode: model.quantize(mode)
        for mode in ("int8", "int4", "float8")
    },
}


def from_file(model, path):
    model.save(path)
    objects = {type(model).__name__: type(model)}
    return keras.models.load_model(path, custom_objects=objects)


def from_json(model):
    return keras.models.model_from_json(model.to_json())


def from_config(model):
    return type(model).from_config(json.loads(json.dumps(model.get_config())))


COPIES = {
    "from_config": from_config,
    "from_json": from_json,
    "clone": keras.models.clone_model,
}


def outputs(model):
    inputs = MASKED if isinstance(model.input, dict) else IDS
    return keras.tree.flatten(model(inputs))


def assert_same(model, copy):
    """Both answer alike, and the same of their weights train."""
    for found, expected in zip(outputs(copy), outputs(model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    flags = [v.trainable for v in copy.weights]
    assert flags == [v.trainable for v in model.weights]


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.filterwarnings("ignore:Invalid quantization mode")
# Embeddings have no float8.
@pytest.mark.filterwarnings("ignore:Layers that have no such quantization")
@pytest.mark.parametrize(
    "model, change",
    [
        *(("causal_lm", change) for change in CHANGES if change != "int4"),
        *(("users", change) for change in ("settings", "frozen")),
        pytest.param("causal_lm", "int4", marks=pytest.mark.slow),
        *(
            pytest.param("users", change, marks=pytest.mark.slow)
            for change in ("lora", "int8", "int4", "float8")
        ),
    ],
)
def test_files(model, change, tmp_path):
    model = MODELS[model]()
    CHANGES[change](model)
    loaded = from_file(model, tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert_same(model, loaded)


@pytest.mark.covering(1)
@pytest.mark.parametrize("change", ["settings", "frozen", "lora"])
@pytest.mark.parametrize("model", ["causal_lm", "users"])
def test_legacy_files(model, change, tmp_path):
    model = MODELS[model]()
    CHANGES[change](model)
    loaded = from_file(model, tmp_path / "model.h5")
    assert_same(model, loaded)
    # Such files have no place for what dropout draws from.
    assert not np.array_equal(seeds_of(loaded), seeds_of(model))


@pytest.mark.covering(1)
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("model", ["causal_lm", "users"])
def test_copies(model, way):
    model = MODELS[model]()
    set_settings(model)
    freeze_parts(model)
    copy = COPIES[way](model)
    copy.set_weights(model.get_weights())
    assert_same(model, copy)
    if isinstance(copy, ReformerCausalLM):
        assert copy.get_config() == model.get_config()


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(head, marks=pytest.mark.slow)
        if head in ("question_answering", "masked_lm", "tied")
        else head
        for head in HEADS
    ],
)
def test_heads(head, tmp_path):
    model = HEADS[head]()
    assert model.get_config().keys().isdisjoint({"head_sublayers"})
    model.quantize("int8")
    model.head.trainable = False
    loaded = from_file(model, tmp_path / "model.keras")
    assert_same(model, loaded)
    assert not loaded.head.trainable
    assert_same(model, from_file(loaded, tmp_path / "again.keras"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_frozen_backbone_in_a_users_model(suffix, tmp_path):
    backbone = tiny.make_backbone(**tiny.SMALLEST)
    backbone.trainable = False
    inputs = {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
    }
    model = keras.Model(inputs, keras.layers.Dense(3)(backbone(inputs)))
    assert len(model.trainable_weights) == 2
    path = tmp_path / f"model{suffix}"
    model.save(path)
    objects = {"ReformerBackbone": ReformerBackbone}
    loaded = keras.models.load_model(path, custom_objects=objects)
    assert len(loaded.trainable_weights) == 2
    # A part of it trains again.
    backbone.sequence.blocks[0].feed_forward.trainable = True
    expected = len(model.trainable_weights)
    assert 2 < expected < len(model.weights)
    model.save(path)
    loaded = keras.models.load_model(path, custom_objects=objects)
    assert len(loaded.trainable_weights) == expected


def test_options_decide_of_which_layers_settings_are_kept():
    backbone = tiny.make_backbone(seed=None)
    backbone.lsh_layers()[1].num_hashes = 1
    backbone.token_embedding.trainable = False
    config = backbone.get_config()
    assert len(config["sublayers"]) == 3  # and a drawn seed of rotations
    kinds = {**config, "attention_layers": ["local"]}
    for options in (kinds, {**config, "num_layers": 1}):
        other = ReformerBackbone.from_config(options)
        assert not other.token_embedding.trainable
        assert not other.lsh_layers()


def test_what_options_make_is_not_in_the_config():
    assert "sublayers" not in tiny.make_backbone().get_config()


def test_bad_sublayers():
    with pytest.raises(ValueError, match=r"Received: sublayers=\['a'\]"):
        tiny.make_backbone(sublayers=["a"])


# --- Weights, of which seeds are none ---


def test_weights_can_be_averaged():
    one, two = (MODELS["causal_lm"]() for _ in range(2))
    pairs = list(zip(one.get_weights(), two.get_weights(), strict=True))
    mean = [np.mean(pair, axis=0) for pair in pairs]
    assert all(array.dtype == "float32" for array in mean)
    total = one.get_weights()
    for array, other in zip(total, two.get_weights(), strict=True):
        array += other
        array /= 2
    before = [tuple(layer.rotation_seed.numpy()) for layer in lsh_layers(one)]
    for weights in (mean, total):
        one.set_weights(weights)
        np.testing.assert_allclose(one.head.kernel, mean[-2], atol=1e-6)
    after = [tuple(layer.rotation_seed.numpy()) for layer in lsh_layers(one)]
    assert before == after
    assert one.count_params() == sum(array.size for array in mean)


def test_weights_of_earlier_versions_are_refused():
    model = MODELS["causal_lm"]()
    seeds = [layer.rotation_seed.numpy() for layer in lsh_layers(model)]
    with pytest.raises(ValueError, match="expecting"):
        model.set_weights([*model.get_weights(), *seeds])


def test_moving_averages_leave_seeds_alone():
    model = MODELS["causal_lm"]()
    model.compile(
        keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=1),
        run_eagerly=True,
    )
    before = [tuple(layer.rotation_seed.numpy()) for layer in lsh_layers(model)]
    model.fit(IDS, verbose=0)
    after = [tuple(layer.rotation_seed.numpy()) for layer in lsh_layers(model)]
    assert before == after


def lsh_layers(model):
    return model.backbone.lsh_layers().values()


# --- Files of earlier versions ---


@pytest.fixture(scope="module")
def expected():
    """What the models of the files answered when they were saved."""
    with np.load(FILES / "expected.npz") as arrays:
        return dict(arrays)


def test_earlier_model(expected, tmp_path):
    """Its config has no settings of single layers, its seeds were weights."""
    loaded = earlier.load(FILES / "causal_lm.keras")
    config = loaded.backbone.get_config()
    options = {k: v for k, v in config.items() if k != "sublayers"}
    other = ReformerCausalLM(backbone=ReformerBackbone.from_config(options))
    with zipfile.ZipFile(FILES / "causal_lm.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    other.load_weights(tmp_path / "model.weights.h5")
    for model in (loaded, other):
        np.testing.assert_allclose(
            model(expected["token_ids"]), expected["logits"], atol=1e-5
        )
        first, last = lsh_layers(model)
        assert (first.num_hashes, last.num_hashes) == (3, 1)
        assert first.rotations is not None and last.rotations is None
        for layer, seed in zip(
            (first, last), expected["rotation_seeds"], strict=True
        ):
            np.testing.assert_array_equal(layer.rotation_seed, seed)
        np.testing.assert_array_equal(seeds_of(model), expected["seeds"])


def seeds_of(model):
    """States of the seed generators that draw in training."""
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    return np.stack([state.numpy() for state in states])


def test_earlier_users_model(expected):
    loaded = earlier.load(FILES / "attention.keras")
    outputs = loaded(expected["inputs"])
    np.testing.assert_allclose(outputs, expected["outputs"], atol=1e-5)
