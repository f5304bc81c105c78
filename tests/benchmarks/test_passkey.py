import numpy as np
import passkey
import pytest

from keras_reformer.data import ByteTokenizer


def documents(length, count=20):
    rng = np.random.default_rng(0)
    return [passkey.document(rng, length) for _ in range(count)]


def test_a_document_says_the_key_asks_for_it_and_answers():
    for text, key in documents(1000):
        text, key = text.decode(), key.decode()
        assert len(text) == 1001
        assert text.startswith(passkey.HEAD)
        assert text.endswith(passkey.QUESTION + key)
        assert text.count(passkey.PASSKEY.format(key)) == 1
        assert text.count(key) == 3


def test_the_key_stands_between_sentences_anywhere():
    places = set()
    for text, key in documents(1000, 200):
        before = text.decode().split(passkey.PASSKEY.format(key.decode()))[0]
        assert before == passkey.HEAD or before.endswith(passkey.SENTENCES)
        places.add(len(before))
    assert min(places) == len(passkey.HEAD)
    assert max(places) > 800
    assert len(places) > 30


def test_keys_are_random():
    keys = {key for _, key in documents(400, 100)}
    assert len(keys) > 95
    assert all(key.isdigit() and len(key) == 5 for key in keys)


def test_weights_and_labels_of_a_batch():
    rng = np.random.default_rng(0)
    tokens, labels, weights = passkey.passkey_batch(rng, 3, 400, 0.25)
    assert tokens.shape == labels.shape == weights.shape == (3, 400)
    np.testing.assert_array_equal(tokens[:, 1:], labels[:, :-1])
    np.testing.assert_allclose(weights[:, :-5].sum(axis=1), 0.25, rtol=1e-5)
    np.testing.assert_allclose(weights[:, -5:], 0.2)
    for row in labels:
        assert ByteTokenizer().detokenize(row[-5:]).isdigit()


def test_a_document_without_room_is_refused():
    with pytest.raises(ValueError, match="no room"):
        passkey.document(np.random.default_rng(0), 200)
