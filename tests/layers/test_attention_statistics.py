"""`LSHSelfAttention.attention_statistics`: what the layer attends to."""

import re

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    AlibiBias,
    LSHSelfAttention,
    RelativePositionBias,
    RotaryEmbedding,
)

BATCH, HEADS, KEY_DIM, VALUE_DIM, DIM, LENGTH, CHUNK = 2, 3, 6, 5, 7, 31, 4
ROWS = [30, 0, 11, 12, 5]
KINDS = {
    "bucket": {},
    "causal": {"causal": True, "num_chunks_before": 2},
    "bias": {"num_chunks_after": 1, "position_bias": AlibiBias(HEADS)},
    "discount": {
        "num_buckets": [2, 4],
        "num_chunks_after": 1,
        "discount_duplicates": True,
    },
    "importance": {"num_buckets": [2, 4], "duplicates": "importance"},
    "chances": {
        "scope": "chunk",
        "causal": True,
        "duplicates": "importance",
        "position_bias": AlibiBias(HEADS),
    },
    "chunk": {
        "scope": "chunk",
        "rotary_embedding": RotaryEmbedding(dtype="float64"),
    },
    "wrap": {
        "scope": "chunk",
        "wrap": True,
        "num_chunks_after": 1,
        "discount_duplicates": True,
        "position_bias": RelativePositionBias(HEADS, num_buckets=8),
    },
}


def make_layer(dtype="float64", **options):
    return LSHSelfAttention(
        HEADS,
        KEY_DIM,
        VALUE_DIM,
        **{"num_hashes": 3, "num_buckets": 4, "chunk_length": CHUNK} | options,
        exact_below=0,
        dropout=0.5,
        seed=3,
        dtype=dtype,
    )


def make_inputs():
    return np.random.default_rng(0).normal(size=(BATCH, LENGTH, DIM))


def context(layer, x, weights):
    """The weights' mean of the values, as the layer puts it out."""
    value = tf.reshape(layer.value(x), [BATCH, LENGTH, HEADS, VALUE_DIM])
    attended = tf.einsum("bhqk,bkhd->bqhd", weights, value)
    merged = tf.reshape(attended, [BATCH, len(ROWS), HEADS * VALUE_DIM])
    return layer.attention_output(merged)


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_dtype", [None, "bool", "int32"])
def test_weights_make_the_layers_outputs(kind, mask_dtype):
    layer, x, mask = make_layer(**KINDS[kind]), make_inputs(), None
    if mask_dtype:
        mask = np.random.default_rng(4).random((BATCH, LENGTH)) < 0.7
        mask = tf.cast(mask, mask_dtype)
    output = layer(x, mask=mask)
    found = layer.attention_statistics(x, ROWS, mask)
    assert found["buckets"].shape == (BATCH, HEADS, 3, LENGTH)
    assert found["weights"].shape == (BATCH, HEADS, len(ROWS), LENGTH)
    expected = tf.gather(output, ROWS, axis=1)
    np.testing.assert_allclose(
        context(layer, x, found["weights"]), expected, atol=1e-12
    )
    total = np.sum(found["weights"], axis=-1)
    valid = np.ones((BATCH, LENGTH)) if mask is None else mask.numpy()
    valid = np.broadcast_to(valid[:, None, ROWS], total.shape)
    np.testing.assert_allclose(total, valid, atol=1e-12)


@pytest.mark.parametrize("kind", ["discount", "wrap"])
def test_no_array_is_length_by_length(kind):
    length = 1021
    layer = make_layer("float32", **KINDS[kind])
    x = tf.ones((1, length, DIM))
    layer.build(x.shape)

    @tf.function(jit_compile=True, autograph=False)
    def statistics(x):
        return layer.attention_statistics(x, ROWS)

    program = statistics.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    shapes = re.findall(r"\[(\d[\d,]*)\]", program)
    sizes = [np.prod(list(map(int, shape.split(",")))) for shape in shapes]
    assert HEADS * len(ROWS) * length in sizes
    assert max(sizes) < length**2 / 8
