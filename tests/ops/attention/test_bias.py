"""Biases of attention scores, and gradients by what they are made of."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.duplicates import attention_of_rows
from keras_reformer.ops.attention.exact import (
    exact_attention,
    exact_shared_attention,
)
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.lsh import lsh_attention
from keras_reformer.ops.attention.sorting import sort_by_bucket
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.loops import tiling
from tests.support import reference
from tests.support.executions import EXECUTIONS
from tests.support.finite_differences import check_finite_differences

BATCH, HEADS, DIM, VALUE_DIM, CHUNK, LENGTH, HASHES = 2, 3, 5, 7, 4, 27, 3
CAUSAL = [True, False]
LSH = {
    "bucket": {"scope": "bucket"},
    "chunk": {"scope": "chunk"},
    "wrap": {"scope": "chunk", "wrap": True},
    "discount": {"scope": "bucket", "discount_duplicates": True},
    "wide": {
        "scope": "chunk",
        "num_chunks_before": 1,
        "num_chunks_after": 2,
        "wrap": True,
        "discount_duplicates": True,
    },
}


def make_values():
    rng = np.random.default_rng(3)
    return rng.normal(size=(HEADS, 6)), rng.normal(size=HEADS)


def bias_of(values, query, key, heads):
    """Nothing that a kernel could get right by chance: no symmetry at all."""
    table, slope = values
    cell = heads * 6 + (2 * query + key) % 6
    wave = tf.sin(tf.cast(key - 2 * query, tf.float64) * 0.3)
    flat = tf.reshape(table, [-1])
    return tf.gather(flat, cell) + tf.gather(slope, heads) * wave


def whole_bias():
    """`(heads, length, length)`."""
    heads, query, key = np.ogrid[:HEADS, :LENGTH, :LENGTH]
    return bias_of(make_values(), query, key, heads).numpy()


def make_bias(values=None):
    values = values or [tf.constant(x) for x in make_values()]
    return PositionBias(bias_of, values, HEADS)


def make_case(seed=0):
    rng = np.random.default_rng(seed)
    query, key = rng.normal(size=(2, BATCH, HEADS, LENGTH, DIM))
    value = rng.normal(size=(BATCH, HEADS, LENGTH, VALUE_DIM))
    mask = rng.random((BATCH, LENGTH)) < 0.8
    buckets = rng.integers(4, size=(BATCH, HEADS, HASHES, LENGTH))
    buckets = np.where(mask[:, None, None], buckets, 4).astype("int32")
    return query, key, value, mask, buckets


def lsh(case, bias, vectors, causal=False, **options):
    """`lsh_attention` with the reference's options."""
    options = dict(options)
    window = Window(
        CHUNK,
        options.pop("num_chunks_before", 1),
        options.pop("num_chunks_after", 0),
        causal,
        False,
        options.pop("scope") == "bucket",
    )
    query_key, _, value = vectors
    buckets = tf.constant(case[4])
    orders = sort_by_bucket(buckets)
    mask = tf.constant(case[3])
    return lsh_attention(
        query_key,
        value,
        orders,
        buckets,
        window,
        mask=mask,
        bias=bias,
        **options,
    )


def local(case, bias, vectors, causal=False, **options):
    window = Window(CHUNK, 1, 0 if causal else 2, causal, True, False)
    query, key, value = vectors
    mask = tf.constant(case[3])
    return local_attention(
        query, key / DIM**0.5, value, window, mask=mask, bias=bias, **options
    )


def exact(case, bias, vectors, causal=False, **options):
    query, key, value = vectors
    mask = tf.constant(case[3])
    return exact_attention(
        query,
        key / DIM**0.5,
        value,
        mask=mask,
        query_mask=mask,
        causal=causal,
        bias=bias,
        query_chunk_length=5,
        **options,
    )


def shared(case, bias, vectors, causal=False, **options):
    query_key, _, value = vectors
    return exact_shared_attention(
        query_key,
        value,
        causal=causal,
        mask=tf.constant(case[3]),
        bias=bias,
        query_chunk_length=5,
        **options,
    )


KINDS = {
    **{
        name: functools.partial(lsh, **options) for name, options in LSH.items()
    },
    "local": local,
    "local wrap": functools.partial(local, wrap=True),
    "exact": exact,
    "shared": shared,
}


def expected_output(kind, case, causal):
    query, key, value, mask, buckets = case
    options = {"causal": causal, "mask": mask, "bias": whole_bias()}
    if kind in LSH:
        return reference.lsh_attention(
            query, value, buckets, chunk_length=CHUNK, **LSH[kind], **options
        )
    if kind == "exact":
        return reference.exact_attention(query, key, value, **options)
    if kind == "shared":
        return reference.exact_shared_attention(query, value, **options)
    return reference.local_attention(
        query,
        key,
        value,
        chunk_length=CHUNK,
        num_chunks_before=1,
        num_chunks_after=0 if causal else 2,
        wrap=kind == "local wrap",
        **options,
    )


def tensors(case):
    return [tf.constant(x) for x in case[:3]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("causal", CAUSAL)
def test_equals_the_reference(kind, causal):
    case = make_case()
    output = KINDS[kind](case, make_bias(), tensors(case), causal)
    np.testing.assert_allclose(
        output, expected_output(kind, case, causal), atol=1e-12
    )


@pytest.mark.parametrize(
    "kind, tokens_in_step, shared_dropout",
    [
        *((kind, 10_000, False) for kind in KINDS),
        # Loops over groups take long to differentiate so often.
        ("bucket", 16, True),
        *(
            pytest.param(kind, 16, True, marks=pytest.mark.slow)
            for kind in KINDS
            if kind != "bucket"
        ),
    ],
)
def test_gradient_equals_finite_differences(
    kind, tokens_in_step, shared_dropout, monkeypatch
):
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", tokens_in_step)
    case = make_case()
    dropout = AttentionDropout(0.2, tf.constant([1, 2]), shared_dropout)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=case[2].shape)
    arguments = [*tensors(case), *make_bias().values]

    def loss(arguments):
        output = KINDS[kind](
            case, make_bias(arguments[3:]), arguments[:3], dropout=dropout
        )
        return tf.reduce_sum(weights * output)

    check_finite_differences(loss, arguments, rng)


@pytest.mark.parametrize(
    "kind, name",
    [
        ("shared", "xla"),
        *(
            pytest.param(kind, "xla", marks=pytest.mark.slow)
            for kind in ("bucket", "local", "wide")
        ),
        ("bucket", "graph"),
    ],
)
def test_every_execution_gives_the_same_gradients(kind, name, monkeypatch):
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", 16)
    case = make_case()
    weights = np.random.default_rng(1).normal(size=case[2].shape)

    def run(vectors, values):
        with tf.GradientTape() as tape:
            tape.watch((vectors, values))
            output = KINDS[kind](case, make_bias(values), vectors)
            total = tf.reduce_sum(weights * output)
        return tape.gradient(total, values)

    arguments = tensors(case), list(make_bias().values)
    for found, expected in zip(
        EXECUTIONS[name](run)(*arguments), run(*arguments), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("heads", [1, HEADS])
@pytest.mark.parametrize("kind", ["exact", "shared"])
def test_a_matrix_of_pairs(batch, heads, kind):
    case = make_case()
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(batch, heads, LENGTH, LENGTH))
    attend = {"exact": exact, "shared": shared}[kind]
    output = attend(
        case, None, tensors(case), attention_bias=tf.constant(matrix)
    )
    query, key, value, mask, _ = case
    for row in range(BATCH):
        one = slice(row, row + 1)
        bias = np.broadcast_to(matrix[row % batch], (HEADS, LENGTH, LENGTH))
        arguments = (query[one], key[one], value[one])
        if kind == "shared":
            arguments = (query[one], value[one])
        expected = getattr(
            reference,
            "exact_attention" if kind == "exact" else "exact_shared_attention",
        )(*arguments, causal=False, mask=mask[one], bias=bias)
        np.testing.assert_allclose(output[one], expected, atol=1e-12)


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("heads", [1, HEADS])
def test_gradient_of_a_matrix_equals_finite_differences(batch, heads):
    case = make_case()
    rng = np.random.default_rng(4)
    matrix = tf.constant(rng.normal(size=(batch, heads, LENGTH, LENGTH)))
    weights = rng.normal(size=case[2].shape)

    def loss(arguments):
        output = exact(
            case,
            make_bias(arguments[4:]),
            arguments[:3],
            attention_bias=arguments[3],
            dropout=AttentionDropout(0.2, tf.constant([1, 2])),
        )
        return tf.reduce_sum(weights * output)

    values = make_bias().values
    check_finite_differences(loss, [*tensors(case), matrix, *values], rng)


@pytest.mark.parametrize("kind", LSH)
def test_weights_of_rows(kind):
    case = make_case()
    options = {"before": 1, "after": 0} | {
        key.removeprefix("num_chunks_"): value
        for key, value in LSH[kind].items()
        if key.startswith("num_chunks")
    }
    window = Window(
        chunk_length=CHUNK,
        causal=False,
        sees_itself=False,
        same_bucket=LSH[kind]["scope"] == "bucket",
        **options,
    )
    # Attention to one-hot values returns the weights themselves.
    eye = np.broadcast_to(np.eye(LENGTH), (BATCH, HEADS, LENGTH, LENGTH))
    expected = reference.lsh_attention(
        case[0],
        eye,
        case[4],
        chunk_length=CHUNK,
        mask=case[3],
        bias=whole_bias(),
        **LSH[kind],
    )
    weights = attention_of_rows(
        tf.constant(case[0]),
        sort_by_bucket(case[4]),
        tf.constant(case[4]),
        tf.range(LENGTH),
        window,
        mask=tf.constant(case[3]),
        wrap=LSH[kind].get("wrap", False),
        discount_duplicates=LSH[kind].get("discount_duplicates", False),
        bias=make_bias(),
    )
    np.testing.assert_allclose(weights, expected, atol=1e-12)
