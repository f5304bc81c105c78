"""Low-rank adapters of Keras's layers, in models that reconstruct inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import convert
from keras_reformer.export.endpoints import endpoints
from keras_reformer.layers.static_state import sublayers_of
from keras_reformer.models import ReformerCausalLM
from tests.support import tiny

IDS = tiny.make_ids(2, 20)


def make_model(**options):
    """A model with adapters that have learned something."""
    model = tiny.make_spread_model(**options)
    model.enable_lora(2)
    rng = np.random.default_rng(0)
    for variable in adapters(model):
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return model


def adapters(model):
    return [v for v in model.trainable_variables if "lora" in v.path]


def compiled(model):
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return model


def gradients(model):
    with tf.GradientTape() as tape:
        loss = model.training_loss(IDS)
    return tape.gradient(loss, model.trainable_variables)


def learned(model):
    """By how much a step moves each adapter."""
    before = [np.array(v) for v in adapters(model)]
    if not model.compiled:
        compiled(model)
    model.train_on_batch(IDS)
    pairs = zip(adapters(model), before, strict=True)
    return [np.abs(np.asarray(v) - old).max() for v, old in pairs]


def test_adapters_and_the_head_train():
    model = tiny.make_model()
    model.enable_lora(2)
    paths = [v.path.split("/")[-2:] for v in model.trainable_variables]
    factors = ["lora_kernel_a", "lora_kernel_b"]
    names = ["query", "value", "query_key", "value"]
    assert paths == [
        *([name, factor] for name in names for factor in factors),
        ["head", "kernel"],
        ["head", "bias"],
    ]


def test_gradients_are_those_of_plain_backpropagation():
    lsh = {"num_layers": 1, "attention_layers": ("lsh",)}
    model, plain = make_model(**lsh), make_model(**lsh, recompute=False)
    pairs = zip(gradients(model), gradients(plain), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(expected).max() > 1e-4


def test_a_layer_trains_inside_of_layers_that_do_not():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    for layer in sublayers_of(model.backbone)[1:]:
        layer.trainable = False
    value = model.backbone.sequence.blocks[0].attention.layer.value
    value.trainable = True
    value.enable_lora(2)
    assert max(learned(model)) > 1e-3


@pytest.mark.slow
def test_predict_generate_and_export_after_training():
    model = compiled(make_model(**tiny.SMALLEST))
    model.fit(IDS, verbose=0)
    logits = np.asarray(model(IDS))
    tokens = logits[:, -1].argmax(-1)
    found = model.generate(IDS, IDS.shape[1] + 1, "greedy")
    assert [text[-1] for text in found] == tokens.tolist()
    served = endpoints(model)[0].function({"token_ids": IDS})["logits"]
    np.testing.assert_allclose(served, logits, atol=1e-4)


@pytest.mark.slow
def test_published_layout_has_merged_adapters():
    model = make_model(scope="chunk", wrap=True, activation="relu")
    copy = convert.from_huggingface(
        *convert.to_huggingface(model), convert.get_rotations(model)
    )
    np.testing.assert_allclose(copy(IDS), model(IDS), atol=1e-5)
    assert not adapters(copy)


@pytest.mark.parametrize(
    "way",
    ["model.keras", "weights", pytest.param("preset", marks=pytest.mark.slow)],
)
def test_loaded_adapters_learn(way, tmp_path):
    """Keras merges them and loads zeros, which have no gradient."""
    model = make_model(**tiny.SMALLEST)
    compiled(model).train_on_batch(IDS)
    if way == "model.keras":
        model.save(tmp_path / way)
        loaded = keras.models.load_model(tmp_path / way)
    elif way == "preset":
        model.save_to_preset(tmp_path)
        loaded = ReformerCausalLM.from_preset(tmp_path)
    else:
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = make_model(**tiny.SMALLEST)
        compiled(loaded).train_on_batch(IDS)
        loaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(loaded(IDS), model(IDS), atol=1e-6)
    assert len(adapters(loaded)) == len(adapters(model)) == 4
    assert min(learned(loaded)[1::2]) > 1e-5
    # The next step moves what was drawn.
    assert min(learned(loaded)) > 0


def test_adapter_of_an_embedding_that_is_the_head_too():
    model = tiny.make_spread_model(
        **tiny.SMALLEST, merge="mean", tie_embeddings=True
    )
    model.enable_lora(2, ["token_embedding"])
    # The head is frozen but for this: it has no weights of its own.
    assert len(adapters(model)) == len(model.trainable_variables) == 2
    rng = np.random.default_rng(0)
    for variable in adapters(model):
        variable.assign(rng.normal(size=variable.shape))
    labels, weights = tiny.shifted(IDS)
    expected = tiny.numpy_results(model(IDS), labels, weights)["loss"]
    np.testing.assert_allclose(model.training_loss(IDS), expected, rtol=1e-5)
    assert min(learned(model)) > 1e-4


def test_names_that_are_no_layers():
    model = tiny.make_model(**tiny.SMALLEST)
    with pytest.raises(ValueError, match=r"'value'\]\. Received: .*\['nope'\]"):
        model.enable_lora(2, ["nope"])
    with pytest.raises(ValueError, match="`rank`.*rank=0"):
        model.enable_lora(0)
    model.enable_lora(2, ["value"])
    with pytest.raises(ValueError, match="No layer without an adapter"):
        model.enable_lora(2, ["value"])
