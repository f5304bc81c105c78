"""Checkpoints in Hugging Face's layout."""

import contextlib
import json

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

import keras_reformer
from keras_reformer import convert
from keras_reformer.convert.configs import from_published
from keras_reformer.export import export_saved_model
from tests.support import published
from tests.support.published import CONFIG

IDS = np.random.default_rng(0).integers(0, 13, (2, 19)).astype("int32")
RNG = np.random.default_rng(3)
ROTATIONS = {1: RNG.normal(size=(3, 4, 2, 2))}


def heads(config=CONFIG):
    """By kind of model, a configuration and a state dict."""
    both = {**config, "is_decoder": False}
    body, language_model = published.body(config), published.language_model

    def dense(name, inputs, outputs):
        return {
            f"{name}.weight": RNG.normal(size=(outputs, inputs)),
            f"{name}.bias": RNG.normal(size=outputs),
        }

    classifier = dense("classifier.dense", 24, 12)
    classifier |= dense("classifier.out_proj", 12, 5)
    answers = dense("qa_outputs", 24, 2)
    return {
        "ReformerCausalLM": (config, language_model(config)),
        "ReformerMaskedLM": (both, language_model(config)),
        "ReformerClassifier": (both, {**body, **classifier}),
        "ReformerQuestionAnswering": (both, {**body, **answers}),
        "ReformerBackbone": (config, published.without_prefix(body)),
    }


@pytest.mark.parametrize("kind", heads())
def test_head_follows_from_the_weights(kind):
    config, weights = heads()[kind]
    model = convert.from_huggingface(config, weights)
    assert type(model) is getattr(keras_reformer, kind)
    outputs = keras.tree.map_structure(np.asarray, model(IDS))
    for output in keras.tree.flatten(outputs):
        assert np.isfinite(output).all()
    _, back = convert.to_huggingface(model)
    assert set(back) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array.astype("float32"))


def test_the_classifier_reads_the_first_state():
    config, weights = heads()["ReformerClassifier"]
    model = convert.from_huggingface(config, weights)
    first = np.asarray(model.backbone(IDS))[:, 0].astype("float64")
    hidden = np.tanh(
        first @ weights["classifier.dense.weight"].T
        + weights["classifier.dense.bias"]
    )
    expected = (
        hidden @ weights["classifier.out_proj.weight"].T
        + weights["classifier.out_proj.bias"]
    )
    np.testing.assert_allclose(model(IDS), expected, rtol=1e-4, atol=1e-4)


def test_the_bias_of_the_head_is_added():
    weights = published.language_model()
    model = convert.from_huggingface(CONFIG, weights, ROTATIONS)
    zero = {**weights, "lm_head.bias": np.zeros(13, "float32")}
    without = convert.from_huggingface(CONFIG, zero, ROTATIONS)
    difference = np.asarray(model(IDS)) - np.asarray(without(IDS))
    np.testing.assert_allclose(
        difference,
        np.broadcast_to(weights["lm_head.bias"], (2, 19, 13)),
        atol=1e-4,
    )


def test_an_old_name_of_the_bias_and_buffers():
    weights = published.language_model()
    bias = weights["lm_head.bias"]
    old = {k: v for k, v in weights.items() if k != "lm_head.bias"}
    old["lm_head.decoder.bias"] = bias
    name = "reformer.encoder.layers.1.attention.self_attention."
    old[f"{name}self_mask_value_float16"] = np.array(-1e3)
    model = convert.from_huggingface(CONFIG, old)
    np.testing.assert_array_equal(model.head.bias, bias)
    convert.from_huggingface(CONFIG, {**old, "lm_head.bias": bias})


@pytest.mark.parametrize("unused", [0.0, 1.0])
def test_of_two_biases_the_decoders_own_is_added(unused):
    """transformers since 5.24 trains it and leaves the other as it was."""
    weights = published.language_model()
    own = weights["lm_head.decoder.bias"] = weights["lm_head.bias"]
    weights["lm_head.bias"] = np.full(13, unused, "float32")
    with contextlib.ExitStack() as stack:
        if unused:
            stack.enter_context(pytest.warns(match=r"Not used .* \(13,\)"))
        model = convert.from_huggingface(CONFIG, weights)
    np.testing.assert_array_equal(model.head.bias, own)


def test_missing_left_over_and_misshapen_weights_are_listed():
    weights = published.language_model()
    name = "reformer.encoder.layer_norm.weight"
    weights["reformer.extra"] = weights.pop(name)
    weights["lm_head.bias"] = np.zeros(14)
    with pytest.raises(ValueError) as error:
        convert.from_huggingface(CONFIG, weights)
    message = str(error.value)
    assert f"missing: {name} (24,)" in message
    assert "left over: reformer.extra (24,)" in message
    assert "lm_head.bias (14,) instead of (13,)" in message


def test_options_that_are_not_supported_are_refused():
    config = {**CONFIG, "hidden_act": "prelu"}
    with pytest.raises(ValueError, match="hidden_act"):
        convert.from_huggingface(config, published.language_model())
    with pytest.raises(ValueError, match="layer=0"):
        rotations = {0: np.zeros((3, 4, 2, 2))}
        convert.from_huggingface(CONFIG, published.language_model(), rotations)


def test_learned_positions():
    config = {**CONFIG, "axial_pos_embds": False}
    weights = published.language_model()
    name = "reformer.embeddings.position_embeddings."
    for axis in range(2):
        del weights[f"{name}weights.{axis}"]
    table = RNG.normal(size=(32, 12)).astype("float32")
    weights[f"{name}embedding.weight"] = table
    model = convert.from_huggingface(config, weights)
    embedded = model.backbone.embed(IDS)
    words = weights["reformer.embeddings.word_embeddings.weight"]
    np.testing.assert_allclose(
        embedded, words[IDS] + table[: IDS.shape[1]], rtol=1e-6
    )
    back_config, back = convert.to_huggingface(model)
    assert not back_config["axial_pos_embds"]
    np.testing.assert_array_equal(back[f"{name}embedding.weight"], table)


@pytest.mark.parametrize(
    "length, chunk, expected",
    [(4096, 64, 128), (64, 8, 16), (524288, 64, [128, 128])],
)
def test_number_of_buckets_that_a_configuration_leaves_out(
    length, chunk, expected
):
    config = {"max_position_embeddings": length, "lsh_attn_chunk_length": chunk}
    assert from_published(config)["num_buckets"] == expected


def test_weights_of_half_precision():
    weights = {
        name: array.astype(ml_dtypes.bfloat16)
        for name, array in published.language_model().items()
    }
    _, back = convert.to_huggingface(convert.from_huggingface(CONFIG, weights))
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array.astype("float32"))


def assert_same_backbone(found, expected):
    assert published.options_of(found) == published.options_of(expected)


def test_folders(tmp_path):
    weights = published.language_model()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="config.json"):
        convert.load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    model = convert.load_huggingface(tmp_path)
    convert.save_huggingface(model, tmp_path / "again")
    again = convert.load_huggingface(tmp_path / "again")
    assert_same_backbone(again.backbone, model.backbone)
    for name, array in convert.to_huggingface(again)[1].items():
        np.testing.assert_array_equal(array, weights[name])
    # Both drew their rotations: the file carries them over.
    np.testing.assert_array_equal(again(IDS), model(IDS))


@pytest.mark.parametrize("given", [ROTATIONS, None])
@pytest.mark.parametrize("kind", heads())
def test_there_and_back_is_bit_equal(kind, given, tmp_path):
    config, weights = heads()[kind]
    model = convert.from_huggingface(config, weights, given)
    layer = getattr(model, "backbone", model).sequence.blocks[1].attention.layer
    layer.num_hashes = 1
    back, arrays = convert.to_huggingface(model)
    rotations = convert.get_rotations(model)
    assert back["num_hashes"] == 1
    assert list(rotations) == [1]
    again = convert.from_huggingface(back, arrays, rotations)
    assert type(again) is type(model)
    for one, other in zip(again.weights, model.weights, strict=True):
        if "seed" not in one.name:
            np.testing.assert_array_equal(one, other)
    for output, expected in zip(
        keras.tree.flatten(again(IDS)),
        keras.tree.flatten(model(IDS)),
        strict=True,
    ):
        np.testing.assert_array_equal(output, expected)
    if given:
        np.testing.assert_array_equal(rotations[1], given[1].astype("float32"))


def test_a_classifiers_head_is_in_the_configuration():
    config, weights = heads()["ReformerClassifier"]
    config = {**config, "classifier_dropout": 0.25}
    back, _ = convert.to_huggingface(convert.from_huggingface(config, weights))
    assert (back["num_labels"], back["classifier_dropout"]) == (5, 0.25)


def test_settings_that_were_never_published_are_refused():
    config = {**CONFIG, "attn_layers": ["lsh", "lsh"]}
    model = convert.from_huggingface(config, published.language_model(config))
    layers = [b.attention.layer for b in model.backbone.sequence.blocks]
    layers[0].num_hashes = 1
    with pytest.raises(ValueError, match=r"num_hashes=\[1, 2\]"):
        convert.to_huggingface(model)
    layers[1].num_hashes, layers[1].exact_below = 1, 100
    with pytest.raises(ValueError, match=r"exact_below=\[100\]"):
        convert.to_huggingface(model)


# Exporting takes its time for every layer.
ONE_LAYER = heads({**CONFIG, "attn_layers": ["lsh"]})


@pytest.mark.parametrize(
    "kind, rotations, labels",
    [
        ("ReformerCausalLM", {0: ROTATIONS[1]}, None),
        pytest.param(
            "ReformerClassifier",
            None,
            np.array([3, 1]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_converted_model_saves_trains_and_exports(
    kind, rotations, labels, tmp_path
):
    model = convert.from_huggingface(*ONE_LAYER[kind], rotations)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loaded.compile(
        keras.optimizers.Adam(1e-2),
        None if labels is None else loss,
        run_eagerly=True,
    )
    history = loaded.fit(IDS, labels, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    path = export_saved_model(loaded, str(tmp_path / "saved"))
    exported = tf.saved_model.load(path)
    logits = exported.serve(tf.constant(IDS))["logits"]
    np.testing.assert_allclose(logits, loaded(IDS), atol=1e-5)


def test_variants_that_were_never_published_are_refused():
    model = keras_reformer.ReformerBackbone(13, 1, 2, 8, 8, 32)
    with pytest.raises(ValueError, match="scope"):
        convert.to_huggingface(model)
    with pytest.raises(ValueError, match="Sequential"):
        convert.to_huggingface(keras.Sequential())


def test_a_causal_checkpoint_as_a_masked_model_and_a_classifier(tmp_path):
    weights, entries = published.language_model(), {"is_decoder": False}
    model = convert.from_huggingface(CONFIG, weights)
    convert.save_huggingface(model, tmp_path)
    masked_lm = convert.load_huggingface(tmp_path, config=entries)
    assert type(masked_lm) is keras_reformer.ReformerMaskedLM
    for name, array in convert.to_huggingface(masked_lm)[1].items():
        np.testing.assert_array_equal(array, weights[name])
    classifier = keras_reformer.ReformerClassifier(
        backbone=masked_lm.backbone, num_classes=2
    )
    # A first token sees the others of its chunk.
    changed = np.concatenate([IDS[:, :1], (IDS[:, 1:] + 1) % 13], axis=1)
    assert np.abs(classifier(IDS) - classifier(changed)).max() > 1e-3
