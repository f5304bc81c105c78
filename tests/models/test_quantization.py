"""int8, int4 and float8 of Keras's layers, in whole models."""

import warnings

import keras
import numpy as np
import pytest

from keras_reformer import convert
from keras_reformer.export.endpoints import endpoints
from keras_reformer.layers.static_state import sublayers_of
from keras_reformer.models import from_preset
from tests.support import tiny

IDS = tiny.make_ids(2, 20)
LSH = {"num_layers": 1, "attention_layers": ("lsh",)}
TIED = {**LSH, "merge": "mean", "tie_embeddings": True}


@pytest.fixture(
    scope="module",
    params=[
        "int4 tied",
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in ("int8", "int4", "int8 tied", "float8")
        ),
    ],
)
def quantized(request):
    """A model, and the logits that it had before."""
    mode, *tied = request.param.split()
    model = tiny.make_spread_model(**TIED if tied else LSH)
    before = np.asarray(model(IDS))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        if mode == "float8":
            warnings.filterwarnings("ignore", "Layers that have no")
        model.quantize(mode)
    return model, before


def logits_of(model):
    return np.asarray(model(IDS))


def weights_of(model):
    """By path: Keras makes those of float8 in another order on loading."""
    return {weight.path: np.asarray(weight) for weight in model.weights}


def modes_of(model):
    return {x.quantization_mode for x in sublayers_of(model)} - {None}


def test_outputs_stay_near(quantized):
    model, before = quantized
    difference = np.linalg.norm(logits_of(model) - before)
    # int4 has 15 steps.
    limit = {"int8": 0.25, "int4": 0.5, "float8": 0.5}[modes_of(model).pop()]
    assert 0 < difference < limit * np.linalg.norm(before)


def test_the_loss_in_chunks_is_that_of_the_logits(quantized):
    model, _ = quantized
    labels, weights = tiny.shifted(IDS)
    expected = tiny.numpy_results(logits_of(model), labels, weights)["loss"]
    likelihood, weight = model.log_likelihood(IDS)
    found = -np.sum(likelihood) / np.sum(weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_generated_tokens_are_those_of_the_full_pass(quantized):
    model, _ = quantized
    (text,) = model.generate(IDS[:1, :5], 30, "greedy")
    logits = np.asarray(model(text[None]))[0]
    # What is nearly half a step may be rounded either way.
    chosen = logits[np.arange(4, 29), text[5:]]
    assert (logits[4:29].max(axis=-1) - chosen < 0.05).mean() > 0.9


@pytest.mark.parametrize(
    "way", ["preset", pytest.param("model.keras", marks=pytest.mark.slow)]
)
def test_files_are_equal_to_the_last_bit(quantized, way, tmp_path):
    model, _ = quantized
    if way == "preset":
        model.save_to_preset(tmp_path)
        loaded = from_preset(tmp_path)
    else:
        model.save(tmp_path / way)
        loaded = keras.models.load_model(tmp_path / way)
    assert modes_of(loaded) == modes_of(model)
    found, expected = weights_of(loaded), weights_of(model)
    assert len(found) == len(model.weights)
    assert found.keys() == expected.keys()
    for path, weight in expected.items():
        assert found[path].dtype == weight.dtype
        np.testing.assert_array_equal(found[path], weight)
    np.testing.assert_array_equal(logits_of(loaded), logits_of(model))


@pytest.mark.slow
def test_exports(quantized):
    model, _ = quantized
    served = endpoints(model)[0].function({"token_ids": IDS})["logits"]
    np.testing.assert_allclose(served, logits_of(model), atol=1e-4)


def test_the_published_layout_has_no_quantized_weights(quantized):
    model, _ = quantized
    mode = modes_of(model).pop()
    if model.get_config()["tie_embeddings"]:
        pytest.skip("It has no tied head either.")
    with pytest.raises(ValueError, match=f"not quantized.*value of {mode}"):
        convert.to_huggingface(model)


@pytest.mark.slow
def test_adapters_of_quantized_layers_learn():
    model = tiny.make_spread_model(**LSH)
    model.quantize("int8")
    model.enable_lora(2)
    kernels = [v for v in model.variables if v.dtype == "int8"]
    before = [np.asarray(kernel) for kernel in kernels]
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    losses = [model.train_on_batch(IDS) for _ in range(4)]
    assert losses[-1] < losses[0]
    adapters = [v for v in model.trainable_variables if "lora" in v.path]
    assert len(adapters) == 4
    assert min(np.abs(v).max() for v in adapters) > 0
    for kernel, old in zip(kernels, before, strict=True):
        np.testing.assert_array_equal(kernel, old)


# --- What there is not ---


def test_layers_without_a_mode_are_named():
    model = tiny.make_model(**tiny.SMALLEST)
    with pytest.warns(UserWarning, match="token_embedding.*mode='float8'"):
        model.quantize("float8")
    assert modes_of(model) == {"float8"}


@pytest.mark.parametrize(
    "mode, config", [("gptq", "GPTQConfig"), ("awq", "AWQConfig")]
)
def test_modes_that_are_calibrated_change_nothing(mode, config):
    if not hasattr(keras.quantizers, config):
        pytest.skip("This Keras has no such mode.")
    model = tiny.make_model(**tiny.SMALLEST)
    config = getattr(keras.quantizers, config)(dataset=["a"], tokenizer=None)
    with pytest.raises(ValueError, match=f"two streams.*mode='{mode}'"):
        model.quantize(mode, config=config)
    assert not modes_of(model)
