import batches
import numpy as np
import pytest

from keras_reformer.data import ByteTokenizer


def documents(length, count=20):
    rng = np.random.default_rng(0)
    return [batches.document(rng, length) for _ in range(count)]


def test_a_document_says_the_key_asks_for_it_and_answers():
    for text, key in documents(1000):
        text, key = text.decode(), key.decode()
        assert len(text) == 1001
        assert text.startswith(batches.HEAD)
        assert text.endswith(batches.QUESTION + key)
        assert text.count(batches.PASSKEY.format(key)) == 1
        assert text.count(key) == 3


def test_the_key_stands_between_sentences_anywhere():
    places = set()
    for text, key in documents(1000, 200):
        before = text.decode().split(batches.PASSKEY.format(key.decode()))[0]
        assert before == batches.HEAD or before.endswith(batches.SENTENCES)
        places.add(len(before))
    assert min(places) == len(batches.HEAD)
    assert max(places) > 800
    assert len(places) > 30


def test_keys_are_random():
    keys = {key for _, key in documents(400, 100)}
    assert len(keys) > 95
    assert all(key.isdigit() and len(key) == 5 for key in keys)


def test_weights_and_labels_of_a_batch():
    tokens, labels, weights = batches.passkey(0, 0, 3, 400, 0.25, index=0)
    assert tokens.shape == labels.shape == weights.shape == (3, 400)
    np.testing.assert_array_equal(tokens[:, 1:], labels[:, :-1])
    np.testing.assert_allclose(weights[:, :-5].sum(axis=1), 0.25, rtol=1e-5)
    np.testing.assert_allclose(weights[:, -5:], 0.2)
    for row in labels:
        assert ByteTokenizer().detokenize(row[-5:]).isdigit()


def test_a_document_without_room_is_refused():
    with pytest.raises(ValueError, match="no room"):
        batches.document(np.random.default_rng(0), 200)
