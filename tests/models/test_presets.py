"""Presets: configurations by name, and folders in KerasHub's layout."""

import inspect
import json
import sys
import types

import keras
import numpy as np
import pytest

import keras_reformer
from keras_reformer import convert
from keras_reformer.convert.configs import from_published
from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    from_preset,
)
from keras_reformer.models.presets import PRESETS
from keras_reformer.models.reformer_config import ReformerConfig
from tests.support import tiny

IDS = tiny.make_ids(2, 20)
# config.json of google/reformer-enwik8 and of google/reformer-crime-and-
# punishment, without what is not about the architecture.
PUBLISHED = {
    "enwik8_64k": {
        "attention_head_size": 128,
        "attn_layers": ["local", "local", "lsh", "local"] * 3,
        "axial_pos_embds": True,
        "axial_pos_embds_dim": [256, 768],
        "axial_pos_shape": [128, 512],
        "feed_forward_size": 4096,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.2,
        "hidden_size": 1024,
        "is_decoder": True,
        "layer_norm_eps": 1e-12,
        "local_attention_probs_dropout_prob": 0.2,
        "local_attn_chunk_length": 128,
        "local_num_chunks_after": 0,
        "local_num_chunks_before": 1,
        "lsh_attention_probs_dropout_prob": 0.1,
        "lsh_attn_chunk_length": 256,
        "lsh_num_chunks_after": 0,
        "lsh_num_chunks_before": 1,
        "max_position_embeddings": 65536,
        "num_attention_heads": 8,
        "num_buckets": 512,
        "num_hashes": 4,
        "vocab_size": 258,
    },
    "crime_and_punishment": {
        "attention_head_size": 64,
        "attn_layers": ["local", "lsh"] * 3,
        "axial_pos_embds": True,
        "axial_pos_embds_dim": [64, 192],
        "axial_pos_shape": [512, 1024],
        "feed_forward_size": 512,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.05,
        "hidden_size": 256,
        "is_decoder": True,
        "layer_norm_eps": 1e-12,
        "local_attention_probs_dropout_prob": 0.05,
        "local_attn_chunk_length": 64,
        "local_num_chunks_after": 0,
        "local_num_chunks_before": 1,
        "lsh_attention_probs_dropout_prob": 0.0,
        "lsh_attn_chunk_length": 64,
        "lsh_num_chunks_after": 0,
        "lsh_num_chunks_before": 1,
        "max_position_embeddings": 524288,
        "num_attention_heads": 2,
        "num_buckets": [64, 128],
        "num_hashes": 1,
        "vocab_size": 320,
    },
}
NUM_PARAMETERS = {"crime_and_punishment": 2748224, "enwik8_64k": 149182722}


@pytest.fixture(scope="module")
def model():
    return tiny.make_model(**tiny.SMALLEST)


@pytest.fixture
def folder(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset"


def assert_same(model, copy):
    assert type(copy) is type(model)
    np.testing.assert_array_equal(copy(IDS), model(IDS))


def resolved(arguments):
    """What a backbone would make of its arguments."""
    parameters = inspect.signature(ReformerBackbone).parameters.values()
    defaults = {
        each.name: each.default
        for each in parameters
        if each.default is not each.empty and each.name != "dtype"
    }
    return ReformerConfig(**{**defaults, **arguments}).resolve()


# --- Names ---


@pytest.mark.parametrize("name", PRESETS)
def test_configurations_are_valid(name):
    assert resolved(PRESETS[name].arguments)


@pytest.mark.parametrize("name", PUBLISHED)
def test_configurations_are_the_published_ones(name):
    found = resolved(PRESETS[name].arguments).as_dict()
    expected = resolved(from_published(PUBLISHED[name])).as_dict()
    # Cycled over the depth, or written out.
    layers = [each.pop("attention_layers") for each in (found, expected)]
    depth = found["num_layers"]
    assert layers[0] * (depth // len(layers[0])) == layers[1]
    assert found == expected


@pytest.mark.parametrize(
    "name",
    [
        "crime_and_punishment",
        pytest.param("enwik8_64k", marks=pytest.mark.slow),
    ],
)
def test_sizes(name):
    assert from_preset(name).count_params() == NUM_PARAMETERS[name]


def test_names_give_models_of_any_class_with_changed_arguments():
    short = {"max_sequence_length": 64, "num_layers": 1}
    assert type(from_preset("tiny", **short)) is ReformerCausalLM
    assert type(ReformerBackbone.from_preset("tiny", **short)) is (
        ReformerBackbone
    )
    masked_lm = ReformerMaskedLM.from_preset("tiny", num_hashes=3, **short)
    config = masked_lm.backbone.get_config()
    assert (config["num_hashes"], config["causal"]) == (3, False)


def test_names_of_a_class():
    assert set(PUBLISHED) < set(ReformerClassifier.presets)
    assert ReformerBackbone.presets["tiny"] is PRESETS["tiny"]
    assert "wmt_en_de" not in ReformerCausalLM.presets


# --- Folders ---


def test_folders_are_those_of_keras_hub(folder):
    names = ["config.json", "metadata.json", "model.weights.h5"]
    names += ["task.json", "task.weights.h5"]
    assert sorted(path.name for path in folder.iterdir()) == names
    config = json.loads((folder / "config.json").read_text())
    assert config["class_name"] == "ReformerBackbone"
    assert config["registered_name"] == "keras_reformer>ReformerBackbone"
    assert "build_config" not in (folder / "task.json").read_text()


def test_models_come_back_as_they_were(model, folder):
    assert_same(model, from_preset(folder))
    assert_same(model, ReformerCausalLM.from_preset(str(folder)))
    backbone = ReformerBackbone.from_preset(folder)
    assert_same(model.backbone, backbone)


def test_another_task_begins_with_the_backbone(model, folder):
    classifier = ReformerClassifier.from_preset(
        folder, num_classes=2, causal=False, dtype="mixed_bfloat16"
    )
    assert classifier.head.compute_dtype == "bfloat16"
    pairs = zip(
        classifier.backbone.get_weights(),
        model.backbone.get_weights(),
        strict=True,
    )
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)


def test_weights_are_drawn_on_request(model, folder):
    drawn = from_preset(folder, load_weights=False)
    assert not np.array_equal(drawn.head.kernel, model.head.kernel)
    assert drawn.get_config() == model.get_config()


def test_weights_are_those_of_the_layers_alone(folder, tmp_path):
    compiled = tiny.make_model(**tiny.SMALLEST)
    compiled.compile("adam")
    compiled.optimizer.build(compiled.trainable_variables)
    compiled.save_to_preset(tmp_path / "compiled")
    for name in ("model.weights.h5", "task.weights.h5"):
        sizes = [f.stat().st_size for f in tmp_path.glob(f"*/{name}")]
        assert len(sizes) == 2 and max(sizes) < 1.1 * min(sizes)


def test_an_earlier_preset_leaves_no_task_behind(model, folder):
    model.backbone.save_to_preset(folder)
    assert_same(model.backbone, from_preset(folder))


def test_tied_heads_have_no_weights(tmp_path):
    tied = tiny.make_model(**tiny.SMALLEST, merge="mean", tie_embeddings=True)
    tied.save_to_preset(tmp_path)
    assert not (tmp_path / "task.weights.h5").exists()
    assert_same(tied, from_preset(tmp_path))


def test_export_to_transformers(tmp_path):
    model = tiny.make_model(
        num_layers=1,
        attention_layers=("lsh",),
        scope="chunk",
        wrap=True,
        activation="relu",
    )
    model.export_to_transformers(tmp_path)
    assert_same(model, convert.load_huggingface(tmp_path))
    assert_same(model, from_preset(tmp_path))
    masked_lm = ReformerMaskedLM.from_preset(tmp_path, causal=False)
    np.testing.assert_array_equal(
        masked_lm.backbone.get_weights()[0], model.get_weights()[0]
    )


def test_the_hub_of_hugging_face(model, folder, monkeypatch):
    asked = []

    def download(repo_id, allow_patterns):
        asked.append(repo_id)
        return str(folder)

    hub = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert_same(model, from_preset("hf://owner/some-model.v2"))
    assert asked == ["owner/some-model.v2"]


# --- What cannot be loaded ---


@pytest.mark.parametrize("preset", ["enwik8", "kaggle://a/b", 3, None])
def test_presets_that_are_not_there(preset):
    with pytest.raises(ValueError, match="'enwik8_64k'.*Received: preset="):
        from_preset(preset)


def test_presets_of_another_class():
    with pytest.raises(ValueError, match="class=ReformerClassifier"):
        ReformerClassifier.from_preset("wmt_en_de", num_classes=2)


@pytest.mark.parametrize("preset", ["hf://", "hf://name", "hf://a/b/c"])
def test_bad_names_on_the_hub(preset):
    with pytest.raises(ValueError, match="Expected 'hf://owner/name'"):
        from_preset(preset)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"keras-reformer\[hub\]"):
        from_preset("hf://owner/name")


def cut(folder, name, content=None):
    path = folder / name
    if content is None:
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("config.json", None, "damaged.*config.json"),
        ("config.json", b"[]", "damaged.*config.json"),
        ("config.json", b"{}", "`registered_name`.*model_type=None"),
        ("config.json", b'{"model_type": "bert"}', "model_type='bert'"),
        ("task.json", b"{}", "registered_name=None.*task.json"),
        (
            "task.json",
            b'{"registered_name": "keras>Adam"}',
            "registered_name='keras>Adam'",
        ),
        (
            "task.json",
            b'{"registered_name": "keras_reformer>ReformerCausalLM",'
            b' "config": {"backbone": 3}}',
            "configuration of ReformerCausalLM",
        ),
        ("model.weights.h5", None, "all weights.*model.weights.h5"),
        ("model.weights.h5", b"", "all weights.*model.weights.h5"),
        ("task.weights.h5", None, "all weights.*task.weights.h5"),
    ],
)
def test_damaged_files(folder, name, content, message):
    cut(folder, name, content)
    with pytest.raises(ValueError, match=message):
        from_preset(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "model.weights.h5", "task.weights.h5"]
)
def test_missing_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"lacks a file. Expected {name}"):
        from_preset(folder)


def test_weights_of_another_model(folder):
    tiny.make_model(num_layers=2).backbone.save_weights(
        folder / "model.weights.h5"
    )
    config = json.loads((folder / "task.json").read_text())
    config["config"]["backbone"]["config"]["hidden_dim"] = 32
    config["config"]["backbone"]["config"]["axial_dims"] = [8, 24]
    (folder / "task.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="all weights of the configuration"):
        from_preset(folder)


def test_an_interrupted_save_leaves_the_earlier_preset(folder, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr(keras.saving, "save_weights", fail)

    def contents():
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = contents()
    other = tiny.make_model(**{**tiny.SMALLEST, "intermediate_dim": 16})
    with pytest.raises(OSError, match="no space left"):
        other.save_to_preset(folder)
    assert contents() == before


def test_public_name():
    assert keras_reformer.from_preset is from_preset
