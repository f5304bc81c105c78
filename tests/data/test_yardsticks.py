import collections
import math
import zlib

import numpy as np
import pytest

from keras_reformer.data import (
    bigram_bits_per_byte,
    order0_entropy,
    zlib_bits_per_byte,
)


def to_array(text):
    return np.frombuffer(text, np.uint8)


def slow_bigram(text):
    pairs = collections.Counter(zip(text[:-1], text[1:], strict=True))
    before = collections.Counter(text[:-1])
    bits = sum(
        -count * math.log2(count / before[pair[0]])
        for pair, count in pairs.items()
    )
    return bits / (len(text) - 1)


def test_order0_by_hand():
    assert order0_entropy(to_array(b"aabb")) == pytest.approx(1.0)
    assert order0_entropy(to_array(b"aaab")) == pytest.approx(
        0.75 * math.log2(4 / 3) + 0.25 * 2
    )
    assert order0_entropy(to_array(bytes(range(256)))) == pytest.approx(8.0)
    assert order0_entropy(to_array(b"a")) == 0


@pytest.mark.parametrize(
    "text", [b"ab" * 7 + b"ba", b"the cat sat on the mat", b"\xff\xfe\xff\xff"]
)
def test_bigram_equals_slow_count(text):
    got = bigram_bits_per_byte(to_array(text))
    assert got == pytest.approx(slow_bigram(text), abs=1e-12)


def test_bigram_sees_order_and_order0_does_not():
    regular = to_array(b"abcd" * 100)
    assert bigram_bits_per_byte(regular) == pytest.approx(0, abs=1e-12)
    assert order0_entropy(regular) == pytest.approx(2)


def test_zlib_counts_compressed_bits():
    text = b"spam and eggs, " * 50
    expected = 8 * len(zlib.compress(text, 9)) / len(text)
    assert zlib_bits_per_byte(to_array(text)) == expected < 1


def test_too_few_bytes():
    empty = to_array(b"")
    for measure in (order0_entropy, zlib_bits_per_byte):
        with pytest.raises(ValueError, match=r"len\(data\)=0"):
            measure(empty)
    with pytest.raises(ValueError, match="at least 2"):
        bigram_bits_per_byte(to_array(b"a"))
