"""Attention of random shapes and options, beside the reference and itself."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window
from tests.support import reference

HEADS, KEY_DIM, VALUE_DIM, BUCKETS = 2, 3, 5, 6
RANDOM = settings(max_examples=25, deadline=None, derandomize=True)
# Whatever the inputs, scores and sums are float32 at least.
TOLERANCES = {
    "float64": 1e-10,
    "float32": 1e-5,
    "bfloat16": 1e-5,
    "float16": 1e-5,
}
DTYPES = st.sampled_from(list(TOLERANCES))


@st.composite
def inputs(draw):
    """Vectors of one length, buckets, and a mask or none."""
    shape = draw(st.integers(1, 2)), HEADS, draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    vectors = [
        rng.normal(size=(*shape, dim)) for dim in (KEY_DIM, KEY_DIM, VALUE_DIM)
    ]
    hashes = (*shape[:2], draw(st.integers(1, 5)), shape[2])
    buckets = rng.integers(draw(st.integers(1, BUCKETS)), size=hashes)
    kept = draw(st.sampled_from([None, 0.0, 0.2, 0.8]))
    mask = None if kept is None else rng.random((shape[0], shape[2])) < kept
    return vectors, buckets, mask


@st.composite
def windows(draw):
    """The reference's options of a window."""
    return {
        "chunk_length": draw(st.integers(1, 11)),
        "num_chunks_before": draw(st.integers(0, 3)),
        "num_chunks_after": draw(st.integers(0, 2)),
        "causal": draw(st.booleans()),
    }


def lsh(vectors, buckets, mask, options, scope, **rest):
    query_key, _, value = map(tf.convert_to_tensor, vectors)
    if mask is not None:
        buckets = np.where(mask[:, None, None], buckets, BUCKETS)
    buckets = tf.constant(buckets, tf.int32)
    return lsh_attention(
        query_key,
        value,
        sort_by_bucket(buckets),
        buckets,
        Window(*options.values(), False, scope == "bucket"),
        mask=None if mask is None else tf.constant(mask),
        **rest,
    )


def local(vectors, mask, options, wrap):
    query, key, value = map(tf.convert_to_tensor, vectors)
    return local_attention(
        query,
        key / tf.constant(KEY_DIM**0.5, key.dtype),
        value,
        Window(*options.values(), True, False),
        mask=None if mask is None else tf.constant(mask),
        wrap=wrap,
    )


def rounded(vectors, dtype):
    """In a dtype, and what numbers these are."""
    halves = [tf.cast(x, dtype) for x in vectors]
    return halves, [tf.cast(x, tf.float64).numpy() for x in halves]


@RANDOM
@given(
    inputs(),
    windows(),
    st.sampled_from(["bucket", "chunk", "wrap"]),
    st.booleans(),
    DTYPES,
)
def test_lsh_equals_the_reference(case, options, kind, discount, dtype):
    vectors, buckets, mask = case
    vectors, numbers = rounded(vectors, dtype)
    rest = {
        "scope": "bucket" if kind == "bucket" else "chunk",
        "wrap": kind == "wrap",
        "discount_duplicates": discount,
    }
    output = lsh(vectors, buckets, mask, options, **rest)
    query_key, _, value = numbers
    expected = reference.lsh_attention(
        query_key, value, buckets, mask=mask, **options, **rest
    )
    tolerance = TOLERANCES[dtype]
    np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance)


@RANDOM
@given(inputs(), windows(), st.booleans())
def test_local_equals_the_reference(case, options, wrap):
    vectors, _, mask = case
    output = local(vectors, mask, options, wrap)
    expected = reference.local_attention(
        *vectors, mask=mask, wrap=wrap, **options
    )
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-10)


def padded(case, spare):
    """Masked positions behind, full of what must not matter."""
    vectors, buckets, mask = case
    if mask is None:
        mask = np.ones((len(buckets), buckets.shape[-1]), bool)

    def behind(x, axis, value):
        widths = [(0, spare if i == axis else 0) for i in range(x.ndim)]
        return np.pad(x, widths, constant_values=value)

    vectors = [behind(x, 2, 1e3) for x in vectors]
    return vectors, behind(buckets, 3, 0), behind(mask, 1, False)


@RANDOM
@given(
    inputs(),
    windows(),
    st.sampled_from(["bucket", "chunk", "local"]),
    st.booleans(),
    st.integers(1, 23),
)
def test_padding_changes_nothing(case, options, kind, discount, spare):
    def attend(vectors, buckets, mask):
        if kind == "local":
            return local(vectors, mask, options, False)
        return lsh(
            vectors, buckets, mask, options, kind, discount_duplicates=discount
        )

    expected = attend(*case)
    output = attend(*padded(case, spare))
    length = expected.shape[2]
    np.testing.assert_allclose(output[:, :, :length], expected, atol=1e-12)
    np.testing.assert_array_equal(output[:, :, length:], 0)
