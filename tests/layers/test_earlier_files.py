"""Files that were saved before settings left the weights.

`drawn.keras` is a causal language model of local and LSH layers, with a
convolution of query-keys, a hash center and rotations that were drawn;
`set.keras` is the same one after other rounds, rotations and a length of exact
attention were set on its layers. `layer.keras` is one layer in a user's model.
All hold `num_hashes` and `exact_below` among the weights.
"""

import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_reformer.layers import LSHSelfAttention
from keras_reformer.models import ReformerBackbone, ReformerCausalLM
from tests.support import earlier

FILES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def expected():
    """What the models answered when they were saved."""
    with np.load(FILES / "expected.npz") as arrays:
        return dict(arrays)


def lsh_layers(model):
    return list(model.backbone.lsh_layers().values())


def weights_file(name, folder):
    """The weights alone, of a file that has a config too."""
    with zipfile.ZipFile(FILES / name) as archive:
        archive.extract("model.weights.h5", folder)
    return folder / "model.weights.h5"


def paths_of(model):
    return numberless(v.path for v in model.variables)


def numberless(paths):
    """Seed generators are numbered through the process."""
    return [re.sub(r"^(seed_generator)_\d+/", r"\1/", path) for path in paths]


def test_drawn_rotations(expected):
    model = earlier.load(FILES / "drawn.keras")
    ids = expected["token_ids"]
    np.testing.assert_allclose(model(ids), expected["drawn"], atol=1e-5)
    generated = model.generate(ids[:, :9], 20, sampler="greedy")
    np.testing.assert_array_equal(generated, expected["generated"])
    for layer, seed, center in zip(
        lsh_layers(model),
        expected["rotation_seeds"],
        expected["hash_centers"],
        strict=True,
    ):
        np.testing.assert_array_equal(layer.rotation_seed, seed)
        np.testing.assert_array_equal(layer.hash_center, center)


def assert_settings(model, expected):
    first, second = lsh_layers(model)
    assert (first.num_hashes, second.num_hashes) == (3, 2)
    assert (first.exact_below, second.exact_below) == (None, 40)
    np.testing.assert_array_equal(first.rotations, expected["rotations"])
    assert second.rotations is None
    outputs = model(expected["token_ids"])
    np.testing.assert_allclose(outputs, expected["set"], atol=1e-5)


def test_settings(expected):
    model = earlier.load(FILES / "set.keras")
    assert_settings(model, expected)
    assert paths_of(model) == numberless(expected["weight_paths"])


def test_settings_in_weights_win(expected, tmp_path):
    config = earlier.load(FILES / "set.keras").backbone.get_config()
    del config["sublayers"]
    model = ReformerCausalLM(backbone=ReformerBackbone.from_config(config))
    for layer in lsh_layers(model):
        layer.exact_below = 17
    model.load_weights(weights_file("set.keras", tmp_path))
    assert_settings(model, expected)


def test_settings_in_weights_win_over_the_config(expected, tmp_path):
    model = earlier.load(FILES / "drawn.keras")
    model.load_weights(weights_file("set.keras", tmp_path))
    assert_settings(model, expected)
    model.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    assert_settings(again, expected)


def test_users_layer(expected):
    model = earlier.load(FILES / "layer.keras")
    layer = model.get_layer("lsh")
    assert type(layer) is LSHSelfAttention
    assert layer.num_hashes == 2
    x = expected["inputs"]
    np.testing.assert_allclose(model(x), expected["outputs"], atol=1e-5)
    np.testing.assert_array_equal(layer.hash(x), expected["buckets"])
    seed = expected["layer_rotation_seed"]
    np.testing.assert_array_equal(layer.rotation_seed, seed)
    assert paths_of(model) == numberless(expected["layer_paths"])
