import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.exact import exact_shared_attention
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.dropout import keep_scale
from keras_reformer.ops.loops import tiling
from tests.support import reference
from tests.support.finite_differences import check_finite_differences

BATCH, HEADS, KEY_DIM, VALUE_DIM, CHUNK = 2, 3, 5, 7, 4


def make_case(length, num_hashes=3, num_buckets=4, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    query_key = rng.normal(size=(BATCH, HEADS, length, KEY_DIM))
    value = rng.normal(size=(BATCH, HEADS, length, VALUE_DIM))
    buckets = rng.integers(num_buckets, size=(BATCH, HEADS, num_hashes, length))
    mask = None
    if masked:
        mask = rng.random((BATCH, length)) < 0.7
        buckets = np.where(mask[:, None, None], buckets, num_buckets)
    return query_key, value, buckets.astype("int32"), mask


def window(scope="bucket", causal=True, before=1, after=0, chunk=CHUNK):
    return Window(chunk, before, after, causal, False, scope == "bucket")


def attend(query_key, value, buckets, window, mask=None, **options):
    orders = sort_by_bucket(buckets)
    return lsh_attention(
        tf.convert_to_tensor(query_key),
        tf.convert_to_tensor(value),
        orders,
        tf.constant(buckets),
        window,
        mask=None if mask is None else tf.constant(mask),
        **options,
    )


@pytest.mark.covering(2)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 13, 23])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "scope, wrap", [("bucket", False), ("chunk", False), ("chunk", True)]
)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("discount", [True, False])
def test_equals_the_reference(length, causal, scope, wrap, masked, discount):
    query_key, value, buckets, mask = make_case(length, masked=masked)
    expected = reference.lsh_attention(
        query_key,
        value,
        buckets,
        chunk_length=CHUNK,
        causal=causal,
        scope=scope,
        wrap=wrap,
        mask=mask,
        discount_duplicates=discount,
    )
    output = attend(
        query_key,
        value,
        buckets,
        window(scope, causal),
        mask,
        wrap=wrap,
        discount_duplicates=discount,
    )
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize("before, after", [(0, 0), (2, 0), (0, 1), (1, 2)])
@pytest.mark.parametrize(
    "scope, wrap", [("bucket", False), ("chunk", False), ("chunk", True)]
)
def test_windows_of_other_widths(before, after, scope, wrap):
    query_key, value, buckets, mask = make_case(23, masked=True)
    expected = reference.lsh_attention(
        query_key,
        value,
        buckets,
        chunk_length=CHUNK,
        num_chunks_before=before,
        num_chunks_after=after,
        scope=scope,
        wrap=wrap,
        mask=mask,
    )
    output = attend(
        query_key,
        value,
        buckets,
        window(scope, False, before, after),
        mask,
        wrap=wrap,
    )
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.covering(2)
@pytest.mark.parametrize("tokens_in_step", [16, 100])
@pytest.mark.parametrize("scope, wrap", [("bucket", False), ("chunk", True)])
def test_grouping_changes_nothing(
    tokens_in_step, scope, wrap, monkeypatch, execution
):
    query_key, value, buckets, mask = make_case(37, masked=True)
    dropout = AttentionDropout(0.3, tf.constant([3, 5]))
    weights = np.random.default_rng(1).normal(size=value.shape)

    def run(query_key, value):
        with tf.GradientTape() as tape:
            tape.watch((query_key, value))
            output = attend(
                query_key,
                value,
                buckets,
                window(scope, False, 1, 2),
                mask,
                wrap=wrap,
                dropout=dropout,
            )
            loss = tf.reduce_sum(output * weights)
        return output, *tape.gradient(loss, (query_key, value))

    arguments = tf.constant(query_key), tf.constant(value)
    whole = run(*arguments)
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", tokens_in_step)
    parts = execution(run)(*arguments)
    for part, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-12)


def dropout_mask(rate, seed, num_hashes, length, width):
    """The mask that a reader of `AttentionDropout`'s definition would build."""
    rows = np.arange(BATCH * HEADS).reshape(BATCH, HEADS, 1, 1, 1)
    ranks = np.arange(num_hashes * length).reshape(num_hashes, length, 1)
    masks = keep_scale(
        rate,
        tf.constant(seed),
        rows,
        ranks,
        np.arange(width),
        dtype=tf.float64,
    )
    return masks.numpy()


@pytest.mark.parametrize("scope, wrap", [("bucket", False), ("chunk", True)])
def test_dropout_equals_the_reference(scope, wrap):
    query_key, value, buckets, mask = make_case(23, masked=True)
    rate, seed = 0.4, [7, 11]
    expected = reference.lsh_attention(
        query_key,
        value,
        buckets,
        chunk_length=CHUNK,
        scope=scope,
        wrap=wrap,
        mask=mask,
        dropout_mask=dropout_mask(rate, seed, 3, 24, 2 * CHUNK),
    )
    output = attend(
        query_key,
        value,
        buckets,
        window(scope, False),
        mask,
        wrap=wrap,
        dropout=AttentionDropout(rate, tf.constant(seed)),
    )
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 6, 13])
@pytest.mark.parametrize("masked", [True, False])
def test_one_chunk_over_everything_is_exact_attention(causal, length, masked):
    query_key, value, buckets, mask = make_case(length, 1, masked=masked)
    mask_ = None if mask is None else tf.constant(mask)
    exact = exact_shared_attention(
        tf.constant(query_key),
        tf.constant(value),
        causal=causal,
        mask=mask_,
        query_chunk_length=5,
    )
    expected = reference.exact_shared_attention(
        query_key, value, causal=causal, mask=mask
    )
    output = attend(
        query_key,
        value,
        buckets,
        window("chunk", causal, before=0, chunk=length),
        mask,
    )
    np.testing.assert_allclose(exact, expected, atol=1e-12)
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize(
    "scope, wrap, discount, rate",
    [
        ("bucket", False, False, 0.0),
        ("bucket", False, True, 0.2),
        ("chunk", False, False, 0.2),
        ("chunk", True, True, 0.0),
        ("exact", False, False, 0.2),
    ],
)
@pytest.mark.parametrize("causal", [True, False])
def test_gradient_equals_finite_differences(
    scope, wrap, discount, rate, causal
):
    query_key, value, buckets, mask = make_case(11, masked=True)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=value.shape)
    options = (
        {"dropout": AttentionDropout(rate, tf.constant([1, 2]))} if rate else {}
    )

    def loss(arguments):
        query_key, value = arguments
        if scope == "exact":
            output = exact_shared_attention(
                query_key,
                value,
                causal=causal,
                mask=tf.constant(mask),
                query_chunk_length=4,
                **options,
            )
        else:
            rule = window(scope, causal)
            rest = {"wrap": wrap, "discount_duplicates": discount, **options}
            output = attend(query_key, value, buckets, rule, mask, **rest)
        return tf.reduce_sum(weights * output)

    arguments = [tf.constant(query_key), tf.constant(value)]
    check_finite_differences(loss, arguments, rng)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("num_hashes", [1, 4, 8])
def test_the_first_causal_token_gets_its_own_value(dtype, num_hashes):
    query_key, value, buckets, _ = make_case(13, num_hashes)
    value = tf.cast(value, dtype)
    output = attend(tf.cast(query_key, dtype), value, buckets, window("chunk"))
    np.testing.assert_array_equal(
        output[:, :, 0], tf.cast(value[:, :, 0], "float32")
    )


def test_unknown_batch_and_length():
    query_key, value, buckets, mask = make_case(37, masked=True)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, HEADS, None, KEY_DIM), tf.float64),
            tf.TensorSpec((None, HEADS, None, VALUE_DIM), tf.float64),
            tf.TensorSpec((None, HEADS, 3, None), tf.int32),
            tf.TensorSpec((None, None), tf.bool),
        ]
    )
    def run(query_key, value, buckets, mask):
        with tf.GradientTape() as tape:
            tape.watch(query_key)
            output = lsh_attention(
                query_key,
                value,
                sort_by_bucket(buckets),
                buckets,
                window(),
                mask=mask,
            )
        return output, tape.gradient(output, query_key)

    output, gradient = run(query_key, value, buckets, mask)
    expected = attend(query_key, value, buckets, window(), mask)
    np.testing.assert_allclose(output, expected, atol=1e-12)
    assert np.isfinite(gradient).all()


def test_second_order_gradients_say_that_they_are_missing():
    query_key, value, buckets, _ = make_case(11)
    query_key = tf.constant(query_key)
    with tf.GradientTape() as outer:
        outer.watch(query_key)
        with tf.GradientTape() as crop_chunks:
            crop_chunks.watch(query_key)
            output = attend(query_key, value, buckets, window())
        gradient = crop_chunks.gradient(output, query_key)
    with pytest.raises(LookupError, match="Second-order gradients"):
        outer.gradient(gradient, query_key)
