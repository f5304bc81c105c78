"""Attention layers that know positions, and NumPy versions of them."""

import numpy as np
import tensorflow as tf

from keras_reformer.layers import (
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
)
from tests.support import reference

BATCH, HEADS, KEY_DIM, VALUE_DIM, DIM, CHUNK, LENGTH = 2, 3, 6, 5, 7, 4, 23
BUCKETS = 4
CHUNKS = {"chunk_length": CHUNK, "num_chunks_before": 2}
KINDS = {
    "lsh": (
        LSHSelfAttention,
        {**CHUNKS, "num_buckets": BUCKETS, "num_hashes": 2},
    ),
    "local": (LocalSelfAttention, CHUNKS),
    "exact": (MultiHeadAttention, {"query_chunk_length": CHUNK}),
}


def make_attention(kind, dtype="float64", **options):
    """A layer of a kind; an LSH layer that is built needs `rotations`."""
    make, sizes = KINDS[kind]
    return make(
        HEADS,
        KEY_DIM,
        VALUE_DIM,
        use_bias=False,
        dtype=dtype,
        **{**sizes, **options},
    )


def make_built(kind, **options):
    """The same, built, with rotations that a test can read."""
    layer = make_attention(kind, **options)
    layer.build((BATCH, LENGTH, DIM))
    if kind == "lsh":
        shape = (HEADS, KEY_DIM, layer.num_hashes, BUCKETS // 2)
        layer.rotations = np.random.default_rng(2).normal(size=shape)
    return layer


def make_inputs(length=LENGTH, dtype="float64"):
    """Inputs and a mask."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(BATCH, length, DIM)).astype(dtype)
    return inputs, rng.random((BATCH, length)) < 0.8


def heads_of(dense, inputs):
    """What a projection makes: `(batch, heads, length, dim)`."""
    projected = inputs @ dense.kernel.numpy()
    split = projected.reshape(*inputs.shape[:2], HEADS, -1)
    return split.transpose(0, 2, 1, 3)


def expected_output(layer, inputs, mask, bias=None, turn=lambda heads: heads):
    """What a layer of `make_built` must return for inputs.

    Args:
        bias: `(heads, length, length)`.
        turn: function of the heads of queries and keys.
    """
    options = {"causal": layer.causal, "mask": mask, "bias": bias}
    value = heads_of(layer.value, inputs)
    if isinstance(layer, LSHSelfAttention):
        query_key = turn(heads_of(layer.query_key, inputs))
        buckets = reference.hash_vectors(
            query_key, layer.rotations, [BUCKETS], mask
        )
        heads = reference.lsh_attention(
            query_key, value, buckets, **CHUNKS, **options
        )
    else:
        pair = (turn(heads_of(x, inputs)) for x in (layer.query, layer.key))
        if isinstance(layer, LocalSelfAttention):
            heads = reference.local_attention(
                *pair, value, num_chunks_after=0, **CHUNKS, **options
            )
        else:
            heads = reference.exact_attention(*pair, value, **options)
    merged = heads.transpose(0, 2, 1, 3).reshape(*inputs.shape[:2], -1)
    return merged @ layer.attention_output.kernel.numpy()


def check_gradients(layer, variables):
    """Gradients by variables equal finite differences along a direction."""
    inputs, mask = make_inputs()
    weights = np.random.default_rng(3).normal(size=inputs.shape)

    def loss():
        return tf.reduce_sum(weights * layer(inputs, mask=mask))

    with tf.GradientTape() as tape:
        total = loss()
    gradients = tape.gradient(total, [v.value for v in variables])
    for variable, gradient in zip(variables, gradients, strict=True):
        gradient = tf.convert_to_tensor(gradient)
        direction = np.sign(gradient)
        values, before = [], variable.numpy()
        for step in (1e-6, -1e-6):
            variable.assign(before + step * direction)
            values.append(loss())
        variable.assign(before)
        numeric = (values[0] - values[1]) / 2e-6
        analytic = np.sum(gradient * direction)
        assert analytic > 0
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6)
