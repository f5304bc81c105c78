import sys

import numpy as np
import pytest

from keras_reformer.data import SubwordTokenizer, documents, training_windows

TEXTS = ["the lions lie in the lane\n", "a line of lions", "the lanes align"]
SIZE = 290


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("sentencepiece")
    return SubwordTokenizer.train(TEXTS, SIZE)


@pytest.mark.parametrize(
    "text", ["", "the lions", "  two  spaces \n\n\t", "naïve Ж 漢 🙂", "ﬁ ﬀ"]
)
def test_round_trip(tokenizer, text):
    ids = tokenizer.tokenize(text)
    assert ids.dtype == np.int32
    assert tokenizer.detokenize(ids) == text
    np.testing.assert_array_equal(tokenizer.tokenize(text.encode()), ids)


def test_subwords_are_fewer_than_bytes(tokenizer):
    assert tokenizer.vocabulary_size == SIZE
    assert (tokenizer.padding_id, tokenizer.end_id) == (0, 1)
    assert len(tokenizer.tokenize("the lions")) < 5
    assert tokenizer.tokenize("the lions").min() > 2
    special = [0, *tokenizer.tokenize("lane"), 1]
    assert tokenizer.detokenize(special) == "lane"


def test_equal_texts_give_equal_vocabularies(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a.model")
    SubwordTokenizer.train(iter(TEXTS), SIZE).save(tmp_path / "b.model")
    a, b = ((tmp_path / f"{x}.model").read_bytes() for x in "ab")
    assert a == b
    loaded = SubwordTokenizer(tmp_path / "a.model")
    text = "the lines"
    np.testing.assert_array_equal(
        loaded.tokenize(text), tokenizer.tokenize(text)
    )


def test_pipelines_take_it(tokenizer):
    (ids,) = documents(["the lions"], tokenizer=tokenizer).as_numpy_iterator()
    np.testing.assert_array_equal(ids, tokenizer.tokenize("the lions"))
    corpus = np.concatenate([tokenizer.tokenize(text) for text in TEXTS])
    windows = training_windows(
        corpus.astype(np.uint16), 4, 2, seed=0, num_steps=1
    )
    ((inputs, _),) = windows.as_numpy_iterator()
    assert set(inputs.ravel()) <= set(corpus)


def test_ids_outside_the_vocabulary(tokenizer):
    with pytest.raises(ValueError, match=f"largest id={SIZE}"):
        tokenizer.detokenize([3, SIZE])


def test_bad_models(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="cannot be read.*missing"):
        SubwordTokenizer(tmp_path / "missing")
    (tmp_path / "a").write_bytes(b"no model")
    for model in (tmp_path / "a", b"no model"):
        with pytest.raises(ValueError, match="Expected a SentencePiece model"):
            SubwordTokenizer(model)
    for texts, size in ((TEXTS, 100), (TEXTS, 10_000), ([], SIZE)):
        with pytest.raises(ValueError, match=f"vocabulary_size={size}"):
            SubwordTokenizer.train(texts, size)


def test_the_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"keras-reformer\[subword\]"):
        SubwordTokenizer(b"")
