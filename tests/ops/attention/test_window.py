"""Windows of chunks, seen from the queries and from the keys."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.window import (
    Window,
    by_key,
    by_query,
    crop_chunks,
    slice_chunk,
    windows,
)

REACHES = [(0, 0), (1, 0), (0, 1), (2, 1), (1, 3)]
LENGTH, CHUNKS = 3, 8


def make_window(reach):
    return Window(LENGTH, *reach, False, True, False)


def numbers(chunks=CHUNKS):
    """Every rank's own number, in chunks."""
    ranks = tf.range(chunks * LENGTH)
    return tf.reshape(ranks, [1, chunks, LENGTH])


@pytest.mark.parametrize("reach", REACHES)
def test_windows_are_chunks_side_by_side(reach):
    window, chunks = make_window(reach), numbers()
    wide = windows(chunks, window)
    before, after = reach
    assert wide.shape == (1, CHUNKS - before - after, LENGTH * (sum(reach) + 1))
    for i in range(wide.shape[1]):
        first = i * LENGTH
        expected = np.arange(first, first + wide.shape[2])
        np.testing.assert_array_equal(wide[0, i], expected)
    own = crop_chunks(chunks, before, wide.shape[1])
    tf.debugging.assert_equal(slice_chunk(wide, before, window), own)


def pairs_of(window, by):
    """Distance and slot of each pair, by the ranks of query and key."""
    looks_from_keys = by is by_key
    first = window.after if looks_from_keys else window.before
    own = crop_chunks(numbers(), first, CHUNKS - window.reach)[0]
    around = windows(numbers(), window)[0]
    shape = by(window)
    size = (LENGTH, around.shape[1])
    distance, slot = (np.broadcast_to(x, size) for x in shape[1:])
    query = np.broadcast_to(shape.query, size)
    found = {}
    for here, there in zip(own.numpy(), around.numpy(), strict=True):
        for i, j in np.ndindex(size):
            q, k = (
                (there[j], here[i]) if looks_from_keys else (here[i], there[j])
            )
            found[q, k] = (int(distance[i, j]), int(slot[i, j]))
            start = there[0] if looks_from_keys else here[0]
            assert start + query[i, j] == q
    return found


@pytest.mark.parametrize("reach", REACHES)
def test_both_sides_describe_the_same_pairs(reach):
    window = make_window(reach)
    forward, backward = pairs_of(window, by_query), pairs_of(window, by_key)
    for (q, k), (distance, slot) in forward.items():
        assert distance == q - k
        assert slot == k - (q // LENGTH - window.before) * LENGTH
    common = forward.keys() & backward.keys()
    assert len(common) >= LENGTH**2
    assert all(forward[pair] == backward[pair] for pair in common)
