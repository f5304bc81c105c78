"""Bits per byte that a model has to beat, computed on the same bytes."""

import zlib

import numpy as np


def order0_entropy(data: np.ndarray) -> float:
    """Bits per byte of the best code that knows only how frequent bytes are.

    It is the empirical entropy of `data` itself, `-sum{p(b) log2 p(b)}`.

    Args:
        data: uint8 array of shape `(number of bytes,)`.

    Returns:
        bits: float. Bits per byte.

    Raises:
        ValueError: if `data` is empty.
    """
    _check_length(data, 1)
    return _entropy(np.bincount(data))


def bigram_bits_per_byte(data: np.ndarray) -> float:
    """Bits per byte of the best table of bytes by the byte before.

    It is the empirical conditional entropy of `data` itself: the table is
    counted on the very bytes it is measured on, without smoothing. So no
    bigram table, fitted on whatever text, does better on these bytes: it is
    the strictest yardstick of its kind. The first byte, which has none before
    it, is not counted.

    Args:
        data: uint8 array of shape `(number of bytes,)`.

    Returns:
        bits: float. Bits per byte.

    Raises:
        ValueError: if `data` has fewer than two bytes.
    """
    _check_length(data, 2)
    # In 32 bits: a byte times 256 overflows its own type.
    before, after = data[:-1].astype(np.int32), data[1:]
    # H(after | before) = H(before, after) - H(before)
    pairs = np.bincount(before * 256 + after)
    return _entropy(pairs) - _entropy(np.bincount(before))


def zlib_bits_per_byte(data: np.ndarray) -> float:
    """Bits per byte of the bytes compressed with `zlib`, level 9.

    Args:
        data: uint8 array of shape `(number of bytes,)`.

    Returns:
        bits: float. Bits per byte.

    Raises:
        ValueError: if `data` is empty.
    """
    _check_length(data, 1)
    return 8 * len(zlib.compress(data.tobytes(), 9)) / len(data)


def _entropy(counts: np.ndarray) -> float:
    counts = counts[counts > 0]
    total = counts.sum()
    return float(np.log2(total) - (counts * np.log2(counts)).sum() / total)


def _check_length(data: np.ndarray, least: int) -> None:
    if len(data) < least:
        raise ValueError(
            f"Too few bytes to measure. Expected at least {least}. "
            f"Received: len(data)={len(data)}"
        )
