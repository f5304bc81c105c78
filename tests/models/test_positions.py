"""Every way to tell positions, in whole models."""

import keras
import numpy as np
import pytest

import keras_reformer
from keras_reformer.layers import (
    AlibiBias,
    AxialPositionEmbedding,
    RelativePositionBias,
    RotaryEmbedding,
    SinePositionEncoding,
)
from tests.support import tiny

EMBEDDINGS = ["axial", "learned", "sinusoidal", "rotary", None]
BIASES = ["alibi", "relative", None]
IDS = tiny.make_ids(batch=2, length=19)


@pytest.mark.covering(1)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_trains_and_returns_from_a_file(embedding, bias, tmp_path):
    options = {"position_embedding": embedding, "position_bias": bias}
    model = tiny.make_model(**options, **tiny.SMALLEST)
    before = [v.numpy() for v in model.trainable_variables]
    tiny.fit_once(model, IDS)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert np.isfinite(variable).all() and (old != variable).any()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded(IDS), model(IDS))


def rotary_kinds(backbone):
    layers = [
        block.attention.layer.rotary_embedding
        for block in backbone.sequence.blocks
    ]
    return [None if layer is None else type(layer) for layer in layers]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, [True, False]),
        ({"rotary_layers": "local"}, [True, False]),
        ({"rotary_layers": "all"}, [True, True]),
        ({"attention_layers": "lsh"}, [True, True]),
        ({"attention_layers": "local"}, [True, True]),
    ],
    ids=str,
)
def test_which_layers_are_rotary(options, expected):
    backbone = tiny.make_backbone(position_embedding="rotary", **options)
    assert [kind is not None for kind in rotary_kinds(backbone)] == expected
    config = backbone.get_config()
    again = keras_reformer.ReformerBackbone.from_config(config)
    assert rotary_kinds(again) == rotary_kinds(backbone)


def test_older_configs_are_rotary_everywhere():
    config = tiny.make_backbone(position_embedding="rotary").get_config()
    del config["rotary_layers"]
    backbone = keras_reformer.ReformerBackbone.from_config(config)
    assert rotary_kinds(backbone) == [RotaryEmbedding] * 2


def test_layers_of_each_kind():
    kinds = {
        "axial": AxialPositionEmbedding,
        "learned": AxialPositionEmbedding,
        "sinusoidal": SinePositionEncoding,
    }
    for name in EMBEDDINGS:
        backbone = tiny.make_backbone(position_embedding=name)
        found = backbone.position_embedding
        assert type(found) is kinds.get(name, type(None))
        expected = [RotaryEmbedding if name == "rotary" else None, None]
        assert rotary_kinds(backbone) == expected
    learned = tiny.make_backbone(position_embedding="learned")
    (table,) = learned.position_embedding.tables
    assert table.shape == (tiny.LONGEST, 16)


@pytest.mark.parametrize("causal", [True, False])
def test_biases_of_each_kind(causal):
    for name, kind in (
        ("alibi", AlibiBias),
        ("relative", RelativePositionBias),
    ):
        backbone = tiny.make_backbone(position_bias=name, causal=causal)
        biases = [
            b.attention.layer.position_bias for b in backbone.sequence.blocks
        ]
        assert all(
            type(bias) is kind and bias.num_heads == 2 for bias in biases
        )
        # Layers learn biases of their own.
        assert biases[0] is not biases[1]
        if name == "relative":
            assert biases[0].causal == causal


@pytest.mark.parametrize(
    "options",
    [
        {"position_embedding": "axial"},
        {"position_embedding": "sinusoidal", "position_bias": "alibi"},
        {"position_embedding": "rotary", "position_bias": "relative"},
        *(
            pytest.param({"position_embedding": name}, marks=pytest.mark.slow)
            for name in EMBEDDINGS[1:]
        ),
    ],
    ids=str,
)
def test_a_token_has_one_output_in_a_prefix_and_in_the_whole(options):
    model = tiny.make_spread_model(**options)
    whole = model(IDS).numpy()
    for length in (1, 7, 18):
        prefix = model(IDS[:, :length]).numpy()
        np.testing.assert_allclose(prefix, whole[:, :length], atol=1e-4)
    # Outputs that depend on nothing would pass too.
    assert np.abs(whole[:, 1:] - whole[:, :-1]).max() > 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"position_embedding": "learned"},
        {"position_embedding": "sinusoidal"},
        {"position_embedding": "rotary"},
        {"position_embedding": None, "position_bias": "alibi"},
        {"position_embedding": None, "position_bias": "relative"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["lsh", "local"])
def test_the_order_of_tokens_matters(kind, options):
    options = {**options, "num_layers": 1, "attention_layers": kind}
    model = tiny.make_spread_model(num_buckets=2, **options)
    ids = np.arange(2, 10)[None]
    turned = ids.copy()
    turned[:, :7] = turned[:, 6::-1]
    difference = model(ids).numpy()[:, -1] - model(turned).numpy()[:, -1]
    assert np.abs(difference).max() > 1e-3


@pytest.mark.parametrize(
    "options, received",
    [
        ({"position_embedding": "sine"}, "position_embedding='sine'"),
        ({"position_bias": "t5"}, "position_bias='t5'"),
        ({"axial_shape": (10, 10)}, r"axial_shape=\(10, 10\), position_emb"),
        ({"axial_dims": (4, 12)}, r"axial_dims=\(4, 12\), position_embedding="),
        ({"rotary_layers": "lsh"}, "rotary_layers='lsh'"),
        (
            {"rotary_layers": "local", "attention_layers": "lsh"},
            r"rotary_layers='local', attention_layers=\['lsh'\]",
        ),
    ],
    ids=str,
)
def test_bad_arguments(options, received):
    options = {"position_embedding": "rotary", **options}
    with pytest.raises(ValueError, match=f"Received: {received}"):
        tiny.make_backbone(**options)
