import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reformer.ops.attention.sorting import (
    compact,
    invert_permutation,
    sort_by_bucket,
    sort_rounds,
    take,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 5),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(0, 1000),
)
def test_sort_is_stable_and_inverts(rows, length, num_buckets, seed):
    rng = np.random.default_rng(seed)
    buckets = rng.integers(num_buckets, size=(rows, length)).astype("int32")
    order = sort_by_bucket(tf.constant(buckets))
    expected = np.argsort(buckets, axis=-1, kind="stable")
    np.testing.assert_array_equal(order, expected)
    packed = sort_by_bucket(tf.constant(buckets), num_buckets)
    np.testing.assert_array_equal(packed, expected)
    ranks = invert_permutation(order)
    np.testing.assert_array_equal(
        np.take_along_axis(ranks.numpy(), expected, -1),
        np.tile(np.arange(length), (rows, 1)),
    )
    vectors = rng.normal(size=(rows, length, 3))
    back = take(take(tf.constant(vectors), order), ranks)
    np.testing.assert_array_equal(back, vectors)


@pytest.mark.parametrize("num_buckets", [None, 9])
def test_sort_in_graph_and_xla(num_buckets, execution):
    buckets = np.random.default_rng(0).integers(9, size=(4, 100))
    sort = execution(lambda x: sort_by_bucket(x, num_buckets))
    order = sort(tf.constant(buckets, tf.int32))
    np.testing.assert_array_equal(
        order, np.argsort(buckets, axis=-1, kind="stable")
    )


@pytest.mark.parametrize("num_hashes", [1, 3])
def test_rounds_are_sorted_apart(num_hashes, execution):
    rng = np.random.default_rng(0)
    buckets = rng.integers(9, size=(2, 5, num_hashes, 37))
    orders = execution(lambda x: sort_rounds(x, 9))(
        tf.constant(buckets, tf.int32)
    )
    np.testing.assert_array_equal(
        orders, np.argsort(buckets, axis=-1, kind="stable")
    )


@pytest.mark.parametrize("num_buckets", [2**12, 2**12 + 1, 2**13])
def test_half_a_million_positions_do_not_overflow(num_buckets):
    length = 2**19
    buckets = np.random.default_rng(0).integers(num_buckets, size=(1, length))
    buckets[0, -1] = num_buckets - 1
    order = sort_by_bucket(tf.constant(buckets, tf.int32), num_buckets)
    np.testing.assert_array_equal(
        order, np.argsort(buckets, axis=-1, kind="stable")
    )


@pytest.mark.parametrize(
    "below, dtype",
    [(None, "int32"), (2**15, "int16"), (2**15 + 1, "int32"), (1, "int16")],
)
def test_compact_keeps_numbers(below, dtype):
    largest = (below or 2**20) - 1
    x = tf.constant([0, largest], tf.int32)
    found = compact(x, below)
    assert found.dtype == dtype
    tf.debugging.assert_equal(tf.cast(found, tf.int32), x)
