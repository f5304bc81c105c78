"""`keras-reformer convert`."""

import gzip
import json
import pickle

import keras
import numpy as np
import pytest

import keras_reformer
from keras_reformer import convert
from keras_reformer.cli import main
from tests.support import published
from tests.support.damage import cuts, flips
from tests.support.published import CONFIG


@pytest.fixture
def folder(tmp_path):
    """A checkpoint in Hugging Face's layout."""
    model = convert.from_huggingface(CONFIG, published.language_model())
    convert.save_huggingface(model, tmp_path / "published")
    return tmp_path


def test_there_and_back(folder, capsys):
    file = folder / "new" / "model.keras"
    assert main(["convert", str(folder / "published"), str(file)]) == 0
    assert "ReformerCausalLM of " in capsys.readouterr().out
    assert main(["convert", str(file), str(folder / "back")]) == 0
    for name in ("model.safetensors", "config.json"):
        back = (folder / "back" / name).read_bytes()
        assert back == (folder / "published" / name).read_bytes()


def test_trax(tmp_path):
    source, others = tmp_path / "model.pkl.gz", tmp_path / "others.json"
    with gzip.open(source, "wb") as file:
        pickle.dump({"weights": published.trax_weights()}, file)
    keys = ("num_buckets", "num_hashes", "lsh_attn_chunk_length")
    others.write_text(json.dumps({key: CONFIG[key] for key in keys}))
    target = tmp_path / "model.keras"
    arguments = [str(source), str(target), "--config", str(others)]
    assert main(["convert", *arguments]) == 0
    model = keras.models.load_model(target)
    np.testing.assert_array_equal(
        model.head.bias, published.language_model()["lm_head.bias"]
    )
    assert model.backbone.get_config()["num_buckets"] == 4


@pytest.mark.parametrize(
    "source, target, message",
    [
        ("nowhere", "model.keras", "no such file"),
        ("published", "model.h5", "ends in .keras"),
        ("published/config.json", "model.keras", "no checkpoint"),
    ],
)
def test_bad_input_is_one_line(source, target, message, folder, capsys):
    paths = [str(folder / source), str(folder / target)]
    assert main(["convert", *paths]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_entries_of_a_configuration_are_replaced(folder):
    entries, target = folder / "entries.json", folder / "model.keras"
    entries.write_text('{"is_decoder": false}')
    arguments = [str(folder / "published"), str(target)]
    assert main(["convert", *arguments, "--config", str(entries)]) == 0
    model = keras.models.load_model(target)
    assert type(model) is keras_reformer.ReformerMaskedLM


def test_a_damaged_file_is_one_line_and_nothing_else_is_touched(folder, capsys):
    """Keras itself says that a file cut off was not found."""
    source, target = folder / "model.keras", folder / "back"
    assert main(["convert", str(folder / "published"), str(source)]) == 0
    assert main(["convert", str(source), str(target)]) == 0
    before = {path: path.read_bytes() for path in target.iterdir()}
    content = source.read_bytes()
    source.write_bytes(content[:-1000])
    with pytest.raises(ValueError, match="File not found"):
        keras.models.load_model(source)
    for damaged in [*cuts(content), *flips(content, 6)]:
        source.write_bytes(damaged)
        capsys.readouterr()
        if main(["convert", str(source), str(target)]) == 2:
            (line,) = capsys.readouterr().err.splitlines()
            assert "damaged" in line
            assert str(source) in line
        assert {p: p.read_bytes() for p in target.iterdir()} == before
