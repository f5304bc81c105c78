"""Tokenizers in the folders of presets, in KerasHub's layout."""

import json
import sys
import types

import keras
import numpy as np
import pytest

from keras_reformer.data import (
    ByteTokenizer,
    ImageTokenizer,
    SubwordTokenizer,
    Tokenizer,
)
from keras_reformer.models import from_preset
from keras_reformer.models.presets import PRESETS

TEXT = "the lions"


@pytest.fixture(scope="module")
def subwords():
    pytest.importorskip("sentencepiece")
    return SubwordTokenizer.train([TEXT, "a line of lions"], 280)


@pytest.fixture
def folder(tmp_path):
    ByteTokenizer().save_to_preset(tmp_path)
    return tmp_path


def files_of(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def test_files_are_those_of_keras_hub(folder, subwords):
    assert files_of(folder) == ["tokenizer.json"]
    content = json.loads((folder / "tokenizer.json").read_text())
    assert content["class_name"] == "ByteTokenizer"
    assert content["registered_name"] == "keras_reformer>ByteTokenizer"
    subwords.save_to_preset(folder)
    vocabulary = "assets/tokenizer/vocabulary.spm"
    assert files_of(folder) == [vocabulary, "tokenizer.json"]
    assert "model" not in (folder / "tokenizer.json").read_text()
    # Any program that reads SentencePiece's models reads this one.
    read = SubwordTokenizer(folder / vocabulary)
    np.testing.assert_array_equal(read.tokenize(TEXT), subwords.tokenize(TEXT))


def test_tokenizers_come_back_as_they_were(tmp_path, subwords):
    for tokenizer in (
        ByteTokenizer(),
        ImageTokenizer((4, 5, 3), levels=16),
        subwords,
    ):
        tokenizer.save_to_preset(tmp_path)
        for cls in (Tokenizer, type(tokenizer)):
            found = cls.from_preset(str(tmp_path))
            assert type(found) is type(tokenizer)
            assert found.get_config() == tokenizer.get_config()
            assert found.vocabulary_size == tokenizer.vocabulary_size
        config = keras.saving.serialize_keras_object(tokenizer)
        found = keras.saving.deserialize_keras_object(config)
        assert found.get_config() == tokenizer.get_config()


def test_a_folder_of_both_generates_text(tmp_path):
    sizes = {"num_layers": 1, "attention_layers": ("local",)}
    saved = from_preset("tiny", max_sequence_length=32, **sizes)
    Tokenizer.from_preset("tiny").save_to_preset(tmp_path)
    saved.save_to_preset(tmp_path)

    model = from_preset(tmp_path)
    tokenizer = Tokenizer.from_preset(tmp_path)
    (ids,) = model.generate([tokenizer.tokenize(TEXT)], 16, "greedy")
    assert tokenizer.detokenize(ids).startswith(TEXT) and len(ids) == 16


def test_names_of_bytes():
    of_bytes = {}
    for name, preset in PRESETS.items():
        try:
            of_bytes[name] = Tokenizer.from_preset(name)
        except ValueError as error:
            assert "Expected one of ['tiny', 'enwik8_64k']" in str(error)
            continue
        size = preset.arguments["vocabulary_size"]
        assert of_bytes[name].vocabulary_size == size
    assert {type(each) for each in of_bytes.values()} == {ByteTokenizer}
    assert set(of_bytes) == {"tiny", "enwik8_64k"}
    with pytest.raises(ValueError, match="Expected SubwordTokenizer"):
        SubwordTokenizer.from_preset("tiny")


def test_the_hub_of_hugging_face(folder, monkeypatch):
    def download(repo_id, allow_patterns):
        assert repo_id == "owner/name"
        # And no weights.
        assert allow_patterns == ["tokenizer.json", "assets/tokenizer/*"]
        return str(folder)

    hub = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert type(Tokenizer.from_preset("hf://owner/name")) is ByteTokenizer


# --- What cannot be loaded ---


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "lacks a file. Expected tokenizer.json"),
        (b"{", "damaged.*tokenizer.json"),
        (b'{"version": "1.0"}', "another class.*registered_name=None"),
        (b'{"registered_name": "keras>Adam"}', "another class.*'keras>Adam'"),
        (b'{"registered_name": ["x"]}', "another class"),
        (
            b'{"registered_name": "keras_reformer>ImageTokenizer",'
            b' "config": {"shape": [3]}}',
            r"what ImageTokenizer is made of.*shape=\[3\]",
        ),
        (
            b'{"registered_name": "keras_reformer>SubwordTokenizer",'
            b' "config": {}}',
            "lacks a file. Expected vocabulary.spm",
        ),
    ],
    ids=["none", "cut", "other", "no class", "list", "config", "vocabulary"],
)
def test_damaged_files(folder, content, message):
    if content is None:
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_preset(folder)


def test_damaged_vocabularies(tmp_path, subwords):
    subwords.save_to_preset(tmp_path)
    (tmp_path / "assets" / "tokenizer" / "vocabulary.spm").write_bytes(b"no")
    message = r"SubwordTokenizer.*vocabulary\.spm.*SentencePiece"
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_preset(tmp_path)


def test_another_class_than_asked_for(folder):
    with pytest.raises(ValueError, match="Expected ImageTokenizer.*Byte"):
        ImageTokenizer.from_preset(folder)


def test_a_class_that_nobody_could_find(tmp_path):
    class Mine(ByteTokenizer):
        pass

    with pytest.raises(ValueError, match="registered name.*Received: Mine"):
        Mine().save_to_preset(tmp_path)
