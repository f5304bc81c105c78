"""What Keras makes of the models: clones, and models of inner tensors."""

import keras
import numpy as np
import pytest

from keras_reformer.models import ReformerCausalLM
from tests.support import tiny

SIZES = {**tiny.SIZES, **tiny.SMALLEST}
IDS = tiny.make_ids()
MASK = tiny.make_mask(IDS)
MASKED = {"token_ids": IDS, "padding_mask": MASK}
UNMASKED = {"token_ids": IDS, "padding_mask": None}


@pytest.fixture(scope="module")
def model():
    return ReformerCausalLM(**SIZES)


def clone(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def inner(model):
    return keras.Model(model.input, model.output)


def test_lists_of_ids_and_mask(model):
    expected = model(MASKED)
    for inputs in ([IDS, MASK], (IDS, MASK)):
        np.testing.assert_array_equal(model(inputs), expected)
    model.compile(run_eagerly=True)
    found = model.predict([IDS, MASK], verbose=0)
    np.testing.assert_array_equal(found, expected)
    found, wanted = (
        model.evaluate(inputs, IDS, verbose=0)
        for inputs in ([IDS, MASK], MASKED)
    )
    assert found == wanted
    for a, b in zip(
        model.log_likelihood([IDS, MASK]),
        model.log_likelihood(MASKED),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [clone, inner])
def test_plain_models_take_a_dict_of_both(model, make, tmp_path):
    plain = make(model)
    expected = model(MASKED)
    np.testing.assert_array_equal(plain(MASKED), expected)
    plain.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(MASKED), expected)
    # Limits of plain Functional models.
    for inputs, match in [
        # In the words of newer versions of Keras, and of 3.13.
        (IDS, "named input.*padding_mask.*inputs as a dict|expects 2 input"),
        ({"token_ids": IDS}, 'Missing data for input "padding_mask"'),
        ([IDS, MASK], "structure of `inputs` doesn't match"),
    ]:
        with pytest.raises(ValueError, match=match):
            plain(inputs)


def test_only_clones_need_a_mask(model):
    np.testing.assert_array_equal(inner(model)(UNMASKED), model(IDS))
    with pytest.raises(ValueError, match="not optional|Got 'None'"):
        clone(model)(UNMASKED)


def test_clones_on_inputs_of_ones_own(model):
    inputs = {
        "token_ids": keras.Input((37,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input(
            (37,), dtype="bool", name="padding_mask", optional=True
        ),
    }
    copy = keras.models.clone_model(
        model,
        input_tensors=inputs,
        clone_function=lambda layer: type(layer).from_config(
            layer.get_config()
        ),
    )
    copy.set_weights(model.get_weights())
    assert copy.output_shape == (None, 37, tiny.VOCABULARY)
    np.testing.assert_array_equal(copy(UNMASKED), model(IDS))


def test_calling_a_model_makes_one_that_takes_ids_alone(model):
    ids = keras.Input((None,), dtype="int32")
    plain = keras.Model(ids, model(ids))
    np.testing.assert_array_equal(plain(IDS), model(IDS))
    copy = clone(plain)
    np.testing.assert_array_equal(copy(IDS), model(IDS))
    assert isinstance(copy.layers[-1], ReformerCausalLM)


def test_inner_tensors(model):
    sequence = model.backbone.get_layer("sequence")
    features = keras.Model(model.backbone.input, sequence.output)
    expected = model.backbone.before_normalization(MASKED)
    np.testing.assert_array_equal(features(MASKED), expected)


def test_flat_inputs_are_in_the_order_of_their_names(model):
    assert [x.name for x in model.inputs] == ["padding_mask", "token_ids"]
    flat = keras.Model(model.inputs, model.output)
    expected = model(MASKED)
    np.testing.assert_array_equal(flat([MASK, IDS]), expected)
    np.testing.assert_array_equal(flat(MASKED), expected)


def test_two_models_in_one_are_called():
    first, second = ReformerCausalLM(**SIZES), ReformerCausalLM(**SIZES)
    ids = keras.Input((None,), dtype="int32")
    both = keras.Model(ids, keras.layers.Average()([first(ids), second(ids)]))
    expected = (first(IDS) + second(IDS)) / 2
    np.testing.assert_allclose(both(IDS), expected, atol=1e-6)
    # Their graphs cannot be joined.
    with pytest.raises(ValueError, match="should be unique"):
        keras.Model(
            [first.input, second.input],
            keras.layers.Average()([first.output, second.output]),
        )


def test_tied_embeddings_are_not_cloned():
    model = ReformerCausalLM(**SIZES, merge="mean", tie_embeddings=True)
    with pytest.raises(ValueError, match="tied.*from_config"):
        keras.models.clone_model(model)
    copy = ReformerCausalLM.from_config(model.get_config())
    assert len(copy.weights) == len(model.weights)


def test_label_smoothing_is_not_cloned():
    model = ReformerCausalLM(**SIZES)
    model.compile(label_smoothing=0.1)
    with pytest.raises(TypeError, match="label_smoothing"):
        keras.models.clone_model(model)
