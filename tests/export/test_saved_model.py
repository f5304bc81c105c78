import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_reformer.export import (
    export_saved_model,
    verify_saved_model,
    warmup,
)
from keras_reformer.export.metadata import read_metadata
from tests.support.tiny_exports import IDS, ONE_BLOCK, causal_lm, classifier


@pytest.fixture(scope="module")
def model():
    return causal_lm(**ONE_BLOCK)


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
    metadata = read_metadata(path)
    assert metadata["byte_offset"] == 2
    assert metadata["config"] == model.get_config()
    assert metadata["versions"]["keras"] == keras.__version__


def test_metadata_lists_the_signatures(path):
    metadata = read_metadata(path)
    assert metadata["vocabulary_size"] == 11
    assert metadata["max_length"] == 64
    assert metadata["length_buckets"] == []
    signatures = metadata["signatures"]
    assert set(signatures) == {"serve", "serve_padded", "score", "generate"}
    assert signatures["serve_padded"] == {
        "inputs": {
            "token_ids": {"dtype": "int32", "shape": [None, None]},
            "lengths": {"dtype": "int32", "shape": [None]},
        },
        "outputs": {"logits": {"dtype": "float32", "shape": [None, None, 11]}},
    }


def test_warm_up_requests(path):
    requests = warmup.read(path)
    names = [name for name, _ in requests]
    assert names == ["serve", "serve_padded", "score", "generate"]
    assert all(x["token_ids"].shape == (1, 64) for _, x in requests)


def test_equal_logits_in_a_process_without_this_package(path, model):
    assert verify_saved_model(path, model, IDS) < 1e-5


@pytest.mark.slow
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


def test_no_room(small, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    folder = str(tmp_path / "small")
    with pytest.raises(OSError, match="not be exported: No space"):
        export_saved_model(small, folder)
    assert os.listdir(folder) == []


def test_path_that_is_a_file(small, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="must be a folder"):
        export_saved_model(small, str(tmp_path / "file"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A compiled export with buckets, and its model."""
    model = classifier(**ONE_BLOCK)
    folder = str(tmp_path_factory.mktemp("compiled"))
    return model, export_saved_model(
        model,
        folder,
        length_buckets=(16, 48),
        jit_compile=True,
        warm_up_batch_sizes=(1, 4),
    )


@pytest.mark.slow
def test_buckets_and_compilation_survive(compiled):
    model, path = compiled
    functions = saved_functions(path)
    assert any(f.attr["_XlaMustCompile"].b for f in functions)
    # What is compiled has a static shape in two lengths only.
    loaded = tf.saved_model.load(path)
    for length in (5, 16, 37):
        received = loaded.serve(IDS[:, :length])["logits"]
        expected = model(IDS[:, :length])
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 48"):
        loaded.serve(np.zeros((1, 49), "int32"))


def test_warm_up_requests_of_every_bucket(compiled):
    requests = warmup.read(compiled[1])
    shapes = [x["token_ids"].shape for name, x in requests if name == "serve"]
    assert set(shapes) == {(1, 16), (1, 48), (4, 16), (4, 48)}


def test_nothing_is_compiled_unasked(path):
    assert not any(f.attr["_XlaMustCompile"].b for f in saved_functions(path))
    # These are compiled wherever they stand, for each shape anew.
    operations = {n.op for f in saved_functions(path) for n in f.node_def}
    assert not [name for name in operations if name.startswith("Xla")]


def saved_functions(path):
    content = saved_model_pb2.SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        content.ParseFromString(file.read())
    return content.meta_graphs[0].graph_def.library.function


@pytest.mark.parametrize(
    "buckets, message",
    [
        ((), "positive and increasing"),
        ((0, 5), "positive and increasing"),
        ((8, 8), "positive and increasing"),
        ((9, 8), "positive and increasing"),
        ((8, 65), "Expected at most 64"),
    ],
)
def test_bad_buckets(model, tmp_path, buckets, message):
    with pytest.raises(ValueError, match=message):
        export_saved_model(model, str(tmp_path), length_buckets=buckets)
    assert not list(tmp_path.iterdir())


def test_buckets_for_a_model_without_mask(small, tmp_path):
    with pytest.raises(ValueError, match="padding mask"):
        export_saved_model(small, str(tmp_path), length_buckets=(8,))
