import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.segments import Segments, check_segment_ids
from keras_reformer.ops.attention.short_convolution import short_convolution
from keras_reformer.ops.attention.sorting import sort_segments_by_bucket
from keras_reformer.ops.attention.window import Window
from tests.support import packed

IDS = packed.make_segment_ids(0, rows=3, length=23)


def test_equals_a_walk_along_each_row(execution):
    found = execution(lambda ids: tuple(Segments.of(ids)))(tf.constant(IDS))
    number, first, end = (np.asarray(x) for x in found)
    for row, place in packed.documents(IDS):
        assert (first[row, place] == place.start).all()
        assert (end[row, place] == place.stop).all()
        assert (number[row, place] == IDS[row, place]).all()


def test_chunks_begin_anew_and_are_far_from_other_documents():
    segments = Segments.of(tf.constant(IDS))
    chunk = segments.chunks(4, apart=3).numpy()
    for row, place in packed.documents(IDS):
        own = chunk[row, place]
        np.testing.assert_array_equal(
            own - own[0], np.arange(place.stop - place.start) // 4
        )
        others = np.delete(chunk[row], np.r_[place])
        if len(others):
            assert np.abs(own[:, None] - others).min() >= 3


@pytest.mark.parametrize("num_buckets", [5, 2**28], ids=["packed", "overflow"])
def test_sorts_by_segment_then_bucket_then_position(num_buckets, execution):
    buckets = np.random.default_rng(1).integers(0, 5, (3, 2, 23), "int32")

    @execution
    def order(buckets, ids):
        return sort_segments_by_bucket(buckets, Segments.of(ids), num_buckets)

    found = np.asarray(order(tf.constant(buckets), tf.constant(IDS)))
    for row in range(3):
        for head in range(2):
            keys = np.arange(23), buckets[row, head], IDS[row]
            np.testing.assert_array_equal(found[row, head], np.lexsort(keys))


def test_the_greatest_key_that_fits():
    """`num_buckets * length` is 2**31: the last key is the last int32."""
    length = 2**10
    ids = tf.constant([[0] * 1000 + [1] * 24])
    buckets = tf.fill([1, 1, length], 2**21 - 1)
    order = sort_segments_by_bucket(buckets, Segments.of(ids), 2**21)
    np.testing.assert_array_equal(order[0, 0], np.arange(length))


@pytest.mark.parametrize("causal", [True, False])
def test_windows_of_documents_hold_one_chunk_more(causal):
    window = Window(4, 1, 1 - causal, causal, True, False)
    wider = window.for_documents()
    assert (wider.before, wider.after) == (2, 0 if causal else 2)


def test_convolutions_begin_anew(execution):
    rng = np.random.default_rng(2)
    x, d_y = tf.unstack(tf.constant(rng.normal(size=(2, 3, 23, 4))))
    kernel = tf.constant(rng.normal(size=(3, 4)))

    @execution
    def call_and_gradients(x, d_y, positions):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = short_convolution(x, kernel, positions)
        return y, tape.gradient(y, (x, kernel), d_y)

    positions = Segments.of(tf.constant(IDS)).positions
    y, (d_x, d_kernel) = call_and_gradients(x, d_y, positions)
    total = 0.0
    for row, place in packed.documents(IDS):
        part = slice(row, row + 1), place
        alone = x[part]
        with tf.GradientTape() as tape:
            tape.watch((alone, kernel))
            expected = short_convolution(alone, kernel)
        d_alone, d_part = tape.gradient(expected, (alone, kernel), d_y[part])
        np.testing.assert_allclose(np.asarray(y)[part], expected, atol=1e-12)
        np.testing.assert_allclose(np.asarray(d_x)[part], d_alone, atol=1e-12)
        total += d_part.numpy()
    np.testing.assert_allclose(d_kernel, total, atol=1e-12)


GOOD = [
    ([[0, 0, 1, 1, 4]], None),
    ([[-3, -3, 0, 7, 7]], None),
    ([[1, 1, 2, 2, 0]], [[1, 1, 1, 1, 0]]),
    ([[0, 1, 1, 0, 2]], [[0, 1, 1, 0, 1]]),
    ([[1, 1, 1, 1, 1]], [[1, 0, 0, 1, 1]]),
]
BAD = [
    ([[0, 0, 1, 0, 0]], None),
    ([[2, 1, 1, 1, 1]], None),
    ([[1, 2, 1, 1, 2]], None),
    # A masked token with another id cuts its document.
    ([[1, 1, 0, 1, 1]], [[1, 1, 0, 1, 1]]),
    ([[1, 0, 0, 2, 1]], [[1, 0, 0, 1, 1]]),
]


def as_mask(mask):
    return None if mask is None else tf.constant(mask) > 0


@pytest.mark.parametrize("ids, mask", GOOD, ids=str)
def test_good_segment_ids(ids, mask):
    assert check_segment_ids(tf.constant(ids), as_mask(mask)) == []


@pytest.mark.parametrize("ids, mask", BAD, ids=str)
def test_bad_segment_ids(ids, mask):
    with pytest.raises(ValueError, match=r"must not decrease.*segment_ids=\["):
        check_segment_ids(tf.constant(ids), as_mask(mask))


def test_bad_segment_ids_in_a_graph():
    @tf.function
    def check(ids):
        with tf.control_dependencies(check_segment_ids(ids, None)):
            return tf.identity(ids)

    check(tf.constant([[0, 1]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must not decr"):
        check(tf.constant([[1, 0]]))
