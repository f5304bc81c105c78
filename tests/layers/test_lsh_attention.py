"""`LSHAttention` by itself: heads in, heads out."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers.lsh_attention import LSHAttention
from keras_reformer.layers.lsh_hasher import LSHHasher
from keras_reformer.ops.attention.window import Window
from tests.support import reference

HEADS, KEY_DIM, VALUE_DIM, LENGTH, CHUNK = 2, 6, 3, 29, 4
SEED = np.array([5, 7], "int32")
SCOPES = ["bucket", "chunk"]


def make_attention(scope, longest_exact=0, duplicates="count"):
    return LSHAttention(
        LSHHasher(HEADS, KEY_DIM, 3, 4, CHUNK, scope),
        Window(
            CHUNK,
            before=1,
            after=0,
            causal=True,
            sees_itself=False,
            same_bucket=scope == "bucket",
        ),
        wrap=False,
        duplicates=duplicates,
        longest_exact=longest_exact,
    )


def make_heads():
    rng = np.random.default_rng(0)
    query_key = rng.normal(size=(2, HEADS, LENGTH, KEY_DIM))
    return query_key, rng.normal(size=(2, HEADS, LENGTH, VALUE_DIM))


def attend(attention, query_key, value):
    sort = attention.hasher.sort(query_key, seed=SEED)
    return attention.attend(query_key, value, *sort), sort


@pytest.mark.parametrize("duplicates", ["count", "discount"])
@pytest.mark.parametrize("scope", SCOPES)
def test_equals_the_equations(scope, duplicates):
    query_key, value = make_heads()
    attention = make_attention(scope, duplicates=duplicates)
    found, (_, buckets) = attend(attention, query_key, value)
    expected = reference.lsh_attention(
        query_key,
        value,
        np.asarray(buckets),
        chunk_length=CHUNK,
        causal=True,
        scope=scope,
        discount_duplicates=duplicates == "discount",
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("scope", SCOPES)
def test_short_sequences_are_exact(scope):
    query_key, value = make_heads()
    first, _ = attend(make_attention(scope, LENGTH), query_key, value)
    # All tokens in one bucket, and all chunks in the window.
    attention = make_attention(scope)
    attention = dataclasses.replace(
        attention, window=attention.window._replace(before=LENGTH)
    )
    zeros = np.zeros((2, HEADS, 1, LENGTH), "int32")
    orders = np.broadcast_to(np.arange(LENGTH, dtype="int32"), zeros.shape)
    second = attention.attend(query_key, value, orders, zeros)
    np.testing.assert_allclose(first, second, atol=1e-12)


@pytest.mark.covering(1)
@pytest.mark.parametrize("longest_exact", [0, 17])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_step_is_the_last_row_of_a_full_pass(scope, longest_exact):
    attention, start = make_attention(scope, longest_exact), 13
    query_key, value = map(tf.constant, make_heads())
    prompt = query_key[:, :, :start], value[:, :, :start]
    sort = attention.hasher.sort(prompt[0], seed=SEED)
    cache = attention.make_cache(*prompt, *sort, capacity=LENGTH)
    for position in range(start, LENGTH):
        row = slice(position, position + 1)
        token = query_key[:, :, row], value[:, :, row]
        buckets = attention.hasher.hash(token[0], seed=SEED)[..., 0]
        positions = np.full(2, position, "int32")
        found, cache = attention.attend_to_cache(
            *token, buckets, cache, positions, bias=None
        )
        so_far = slice(position + 1)
        full, _ = attend(
            attention, query_key[:, :, so_far], value[:, :, so_far]
        )
        np.testing.assert_allclose(found, full[:, :, -1:], atol=1e-12)


def test_weights_of_rows_are_what_attends():
    query_key, value = make_heads()
    attention, rows = make_attention("bucket"), np.array([28, 0, 9], "int32")
    found, sort = attend(attention, query_key, value)
    weights = attention.weights_of_rows(query_key, *sort, rows)
    attended = np.einsum("bhqk,bhkd->bhqd", weights, value)
    expected = np.take(found, rows, axis=2)
    np.testing.assert_allclose(attended, expected, atol=1e-12)
