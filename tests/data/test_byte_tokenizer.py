import numpy as np
import pytest

from keras_reformer.data import ByteTokenizer

tokenizer = ByteTokenizer()


def test_ids_are_bytes_plus_two():
    ids = tokenizer.tokenize("Hi\0")
    np.testing.assert_array_equal(ids, [74, 107, 2])
    assert ids.dtype == np.int32


def test_published_vocabulary():
    ids = tokenizer.tokenize(bytes(range(256)))
    assert (ids.min(), ids.max()) == (2, 257)
    assert tokenizer.vocabulary_size == 258
    assert (tokenizer.padding_id, tokenizer.end_id) == (0, 1)


@pytest.mark.parametrize("text", ["", "plain", "naïve Ж 漢 🙂\n\t\0"])
def test_round_trip(text):
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == text


def test_text_is_utf8():
    np.testing.assert_array_equal(
        tokenizer.tokenize("Ж"), tokenizer.tokenize(b"\xd0\x96")
    )


def test_specials_are_dropped():
    assert tokenizer.detokenize([0, 74, 1, 107, 0]) == "Hi"
    assert tokenizer.detokenize([]) == ""


def test_a_cut_character_is_replaced():
    cut = tokenizer.tokenize("aЖ")[:-1]
    assert tokenizer.detokenize(cut) == "a\ufffd"


def test_ids_outside_the_vocabulary():
    with pytest.raises(ValueError, match="largest id=258"):
        tokenizer.detokenize([3, 258])
    with pytest.raises(ValueError, match="smallest id=-1"):
        tokenizer.check([[3, -1]])
    with pytest.raises(ValueError, match="vocabulary_size=100"):
        tokenizer.check([100], vocabulary_size=100)
    np.testing.assert_array_equal(tokenizer.check([99], 100), [99])
