import json
import os

import keras
import numpy as np
import pytest

from keras_reformer.export import export_saved_model, verify_saved_model
from keras_reformer.models import ReformerCausalLM

IDS = np.arange(2 * 37, dtype="int32").reshape(2, 37) % 11


@pytest.fixture(scope="module")
def model():
    return ReformerCausalLM(
        vocabulary_size=11,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
        chunk_length=16,
        seed=0,
    )


@pytest.fixture
def small():
    """Another model of token ids to logits, quick to export."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(11, 3),
            keras.layers.Dense(11),
        ]
    )


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "tiny")
    return export_saved_model(model, folder, metadata={"byte_offset": 2})


def test_layout_of_tensorflow_serving(path):
    assert os.path.basename(path) == "1"
    assert os.path.exists(os.path.join(path, "saved_model.pb"))
    assert os.listdir(os.path.dirname(path)) == ["1"]


def test_metadata(path, model):
    with open(os.path.join(path, "metadata.json")) as file:
        metadata = json.load(file)
    assert metadata["byte_offset"] == 2
    assert metadata["config"] == model.get_config()
    assert metadata["versions"]["keras"] == keras.__version__


def test_equal_logits_in_a_process_without_this_package(path, model):
    assert verify_saved_model(path, model, IDS) < 1e-5


def test_other_weights_are_noticed(small, tmp_path):
    path = export_saved_model(small, str(tmp_path))
    variable = small.trainable_variables[0]
    variable.assign(variable + 1e-2)
    with pytest.raises(RuntimeError, match="other outputs"):
        verify_saved_model(path, small, IDS)


def test_folder_that_holds_no_model(small, tmp_path):
    with pytest.raises(ValueError, match="no SavedModel"):
        verify_saved_model(str(tmp_path), small, IDS)


def test_next_version_is_free(small, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    path = export_saved_model(small, str(tmp_path))
    assert path == str(tmp_path / "8")
    assert sorted(os.listdir(tmp_path)) == ["7", "8", "notes"]


def test_path_that_is_a_file(small, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="must be a folder"):
        export_saved_model(small, str(tmp_path / "file"))
