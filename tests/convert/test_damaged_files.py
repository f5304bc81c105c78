"""Checkpoints of others, cut off and changed."""

import gzip
import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from keras_reformer import convert
from keras_reformer.convert.torch_files import read_torch_file
from keras_reformer.convert.weight_files import read_file
from keras_reformer.files import read_json
from tests.support import published
from tests.support.damage import check, cuts, flips
from tests.support.published import CONFIG

FILES = pathlib.Path(__file__).parent / "files"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, whole."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = convert.from_huggingface(CONFIG, published.language_model())
    convert.save_huggingface(model, folder)
    return folder


@pytest.fixture(scope="module")
def trax(tmp_path_factory):
    path = tmp_path_factory.mktemp("trax") / "model.pkl.gz"
    with gzip.open(path, "wb") as file:
        pickle.dump({"weights": published.trax_weights()}, file, 4)
    return path


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("name", ["model", "rotations"])
def test_safetensors(folder, name):
    """They have no checksum: only a header's damage can be seen."""
    path = folder / f"{name}.safetensors"
    assert not check(path, lambda: read_file(path), cuts(path.read_bytes()))
    check(path, lambda: read_file(path), flips(path.read_bytes()))
    changed = path.read_bytes()[:-1] + b"?"
    assert check(path, lambda: read_file(path), [changed])


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_state_dicts_of_torch(name, tmp_path):
    path = tmp_path / name
    shutil.copy(FILES / name, path)
    whole = read_torch_file(path)

    def read():
        return read_torch_file(path)

    assert not check(path, read, cuts(path.read_bytes()))
    answers = check(path, read, flips(path.read_bytes(), 150))
    # The zip archive has checksums. The other has none.
    if name == "zip.bin":
        assert answers
        for answer in answers:
            assert_same(answer, whole)


def test_each_byte_of_the_end_of_a_legacy_file_is_missed(tmp_path):
    """One value that is left was spread over those that are not."""
    path = tmp_path / "legacy.bin"
    shutil.copy(FILES / "legacy.bin", path)
    content = path.read_bytes()
    ends = (content[:-count] for count in range(1, 130))
    assert not check(path, lambda: read_torch_file(path), ends)


def test_a_storage_larger_than_the_file_is_not_made(tmp_path):
    """The number of elements is a claim of the file."""
    path = tmp_path / "legacy.bin"
    content = (FILES / "legacy.bin").read_bytes()
    claim = b"K\x0cN"  # 12 elements, no view
    assert claim in content
    path.write_bytes(content.replace(claim, b"J\xff\xff\xff\x7fN"))
    with pytest.raises(ValueError, match="larger than the file"):
        read_torch_file(path)


def test_trax(trax, monkeypatch):
    """Its checksum is behind the end of the pickle."""
    monkeypatch.setattr(
        "keras_reformer.convert.trax.from_huggingface",
        lambda config, weights: weights,
    )

    def read():
        return convert.load_trax(trax)

    assert not check(trax, read, cuts(trax.read_bytes()))
    for answer in check(trax, read, flips(trax.read_bytes(), 60)):
        assert_same(answer, published.language_model())


def test_configurations(folder):
    path = folder / "config.json"
    check(path, lambda: read_json(path), cuts(path.read_bytes().rstrip()))
    check(path, lambda: read_json(path), flips(path.read_bytes()))
    for content in (b"[]", b"null", b"7", b'"x"'):
        assert not check(path, lambda: read_json(path), [content])


VALUES = [None, "x", -1, 0, 1.5, True, [], ["x"], {}, [0, -2], [None]]


@pytest.mark.parametrize("entry", sorted(CONFIG))
def test_entries_of_a_configuration(entry):
    """Any value makes a model or a sentence."""
    weights, config = published.language_model(), json.loads(json.dumps(CONFIG))
    for value in VALUES:
        try:
            convert.from_huggingface({**config, entry: value}, weights)
        except ValueError as error:
            assert "Received" in str(error), error


def test_arrays_that_are_no_numbers():
    weights = published.language_model()
    weights["lm_head.bias"] = np.array([{}] * 13)
    with pytest.raises(ValueError, match="no numbers: lm_head.bias object"):
        convert.from_huggingface(CONFIG, weights)


def test_an_earlier_checkpoint_stays_when_writing_fails(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    weights = published.language_model(seed=1)
    model = convert.from_huggingface(CONFIG, weights)

    def fail(*_):
        raise OSError(28, "No space left on device", "config.json")

    monkeypatch.setattr(pathlib.Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        convert.save_huggingface(model, folder)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
