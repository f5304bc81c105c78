"""Settings of a built `LSHSelfAttention`: in its config, not its weights."""

import keras
import numpy as np
import pytest

from keras_reformer.layers.static_state import StaticState
from tests.support.lsh_layers import (
    DIM,
    make_inputs,
    make_layer,
    make_rotations,
)

X = make_inputs(13)


def make_built(**options):
    layer = make_layer(**options)
    layer.build((None, None, DIM))
    return layer


def make_model(**options):
    inputs = keras.Input((None, DIM))
    return keras.Model(inputs, make_layer(**options)(inputs))


def test_the_config_has_the_values_of_now():
    layer = make_built()
    layer.num_hashes, layer.exact_below = 2, 5
    layer.rotations = make_rotations(4, 2)
    config = layer.get_config()
    assert (config["num_hashes"], config["exact_below"]) == (2, 5)
    copy = type(layer).from_config(config)
    assert (copy.num_hashes, copy.exact_below) == (2, 5)
    np.testing.assert_array_equal(copy.rotations, layer.rotations)
    assert copy.get_config() == config


def test_weights_have_variables_and_rotations():
    layer = make_built(center_hashes=True)
    stored = {}
    layer.save_own_variables(stored)
    assert sorted(stored) == ["0", "1"]
    layer.rotations = make_rotations(4)
    layer.save_own_variables(stored)
    assert sorted(stored) == ["0", "1", "rotations"]


def test_loaded_weights_leave_settings_as_they_are(tmp_path):
    path = tmp_path / "model.weights.h5"
    make_model(num_hashes=3, exact_below=7).save_weights(path)
    model = make_model(num_hashes=1)
    model.load_weights(path)
    layer = model.layers[-1]
    assert (layer.num_hashes, layer.exact_below) == (1, None)


@pytest.mark.parametrize("stored, expected", [(5, 5), (0, 0), (-1, None)])
def test_settings_in_weights_of_earlier_versions_win(stored, expected):
    layer = make_built(exact_below=3)
    store = {}
    layer.save_own_variables(store)
    store["num_hashes"] = np.array(2)
    store["exact_below"] = np.array(stored)
    layer.load_own_variables(store)
    assert (layer.num_hashes, layer.exact_below) == (2, expected)
    assert layer.get_config()["exact_below"] == expected


def test_files_keep_what_was_set(tmp_path):
    model = make_model()
    layer = model.layers[-1]
    layer.num_hashes, layer.exact_below = 2, 5
    expected = model(X)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), expected)
    layer = loaded.layers[-1]
    assert (layer.num_hashes, layer.exact_below) == (2, 5)


def test_hashing_follows_settings():
    layer = make_built(num_buckets=4)
    layer.num_hashes, layer.num_buckets, layer.chunk_length = 2, None, 2
    assert layer.hasher.factors(16) == (8,)
    assert layer.hash(X).shape[2] == 2


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_hashes", 2),
        ("exact_below", 5),
        ("rotations", make_rotations(4)),
    ],
)
def test_traces_are_told_of_what_was_set(name, value):
    layer = make_built()
    before = StaticState(layer)
    setattr(layer, name, getattr(layer, name))
    assert StaticState(layer) == before
    setattr(layer, name, value)
    assert StaticState(layer) != before
