import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.duplicates import attention_of_rows
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.loops import tiling
from tests.support import reference
from tests.support.finite_differences import check_finite_differences

BATCH, HEADS, KEY_DIM, VALUE_DIM, CHUNK = 2, 3, 5, 7, 4


def make_case(length, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    query, key = rng.normal(size=(2, BATCH, HEADS, length, KEY_DIM))
    value = rng.normal(size=(BATCH, HEADS, length, VALUE_DIM))
    mask = rng.random((BATCH, length)) < 0.7 if masked else None
    return query, key, value, mask


def attend(query, key, value, window, mask=None, **options):
    return local_attention(
        tf.convert_to_tensor(query),
        tf.convert_to_tensor(key) / KEY_DIM**0.5,
        tf.convert_to_tensor(value),
        window,
        mask=None if mask is None else tf.constant(mask),
        **options,
    )


def window(causal, before=1, after=0):
    return Window(CHUNK, before, after, causal, True, False)


@pytest.mark.covering(2)
@pytest.mark.parametrize("length", [1, 3, 4, 5, 13])
@pytest.mark.parametrize("before, after", [(1, 0), (0, 0), (2, 1)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("wrap", [True, False])
def test_local_equals_the_reference(length, before, after, causal, wrap):
    query, key, value, mask = make_case(length, masked=True)
    expected = reference.local_attention(
        query,
        key,
        value,
        chunk_length=CHUNK,
        num_chunks_before=before,
        num_chunks_after=after,
        causal=causal,
        mask=mask,
        wrap=wrap,
    )
    rule = window(causal, before, after)
    output = attend(query, key, value, rule, mask, wrap=wrap)
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("tokens_in_step", [8, 10_000])
def test_gradient_equals_finite_differences(wrap, tokens_in_step, monkeypatch):
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", tokens_in_step)
    *arguments, mask = make_case(13, masked=True)
    arguments = [tf.constant(x) for x in arguments]
    rng = np.random.default_rng(1)
    weights = rng.normal(size=arguments[2].shape)
    dropout = AttentionDropout(0.2, tf.constant([1, 2]))

    def loss(arguments):
        output = attend(
            *arguments, window(False), mask, wrap=wrap, dropout=dropout
        )
        return tf.reduce_sum(weights * output)

    check_finite_differences(loss, arguments, rng)


@pytest.mark.parametrize(
    "scope, wrap", [("bucket", False), ("chunk", False), ("chunk", True)]
)
@pytest.mark.parametrize("discount", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_weights_of_rows_are_those_of_the_reference(
    scope, wrap, discount, causal
):
    query_key, _, _, mask = make_case(13, masked=True)
    buckets = np.random.default_rng(2).integers(4, size=(BATCH, HEADS, 3, 13))
    buckets = np.where(mask[:, None, None], buckets, 4).astype("int32")
    # Attention to one-hot values returns the weights themselves.
    value = np.broadcast_to(np.eye(13), (BATCH, HEADS, 13, 13))
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
    rows = [12, 0, 5]
    weights = attention_of_rows(
        tf.constant(query_key),
        sort_by_bucket(buckets),
        tf.constant(buckets),
        tf.constant(rows),
        Window(CHUNK, 1, 0, causal, False, scope == "bucket"),
        mask=tf.constant(mask),
        wrap=wrap,
        discount_duplicates=discount,
    )
    np.testing.assert_allclose(weights, expected[:, :, rows], atol=1e-12)
