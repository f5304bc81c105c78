"""Small LSH layers, and the paper's equations with their weights."""

import numpy as np

from keras_reformer.layers import LSHSelfAttention
from keras_reformer.ops.attention.hashing import num_rotation_columns
from tests.support import reference, reference_importance

BATCH, HEADS, KEY_DIM, VALUE_DIM, DIM, CHUNK = 2, 3, 5, 2, 7, 4


def make_layer(**options):
    return LSHSelfAttention(
        **{
            "num_heads": HEADS,
            "key_dim": KEY_DIM,
            "value_dim": VALUE_DIM,
            "num_hashes": 3,
            "num_buckets": 4,
            "chunk_length": CHUNK,
            "use_bias": True,
            "bias_initializer": "normal",
            "seed": 3,
            **options,
        }
    )


def make_inputs(length, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(BATCH, length, DIM)).astype(dtype)


def make_mask(length):
    mask = np.random.default_rng(4).random((BATCH, length)) < 0.7
    mask[:, 0] = True
    return mask


def make_rotations(factors, num_hashes=3, seed=0):
    columns = num_rotation_columns(tuple(np.atleast_1d(factors)))
    return (
        np.random.default_rng(seed)
        .normal(size=(HEADS, KEY_DIM, num_hashes, columns))
        .astype("float32")
    )


def project(dense, x):
    return x @ dense.kernel.numpy() + dense.bias.numpy()


def into_heads(dense, x):
    projected = project(dense, x).reshape(*x.shape[:2], HEADS, -1)
    return projected.transpose(0, 2, 1, 3)


def from_heads(layer, attended):
    batch, _, length, _ = attended.shape
    merged = attended.transpose(0, 2, 1, 3).reshape(batch, length, -1)
    return project(layer.attention_output, merged)


def equations(layer, x, rotations, mask=None):
    """The layer from the paper's equations, in NumPy."""
    query_key = into_heads(layer.query_key, x)
    value = into_heads(layer.value, x)
    buckets = reference.hash_vectors(
        query_key, rotations, np.atleast_1d(layer.num_buckets), mask
    )
    probability = reference_importance.probability(
        tuple(np.atleast_1d(layer.num_buckets).tolist()),
        layer.num_hashes,
        layer.scope,
        layer.chunk_length,
        layer.num_chunks_before + layer.num_chunks_after,
    )
    attended = reference.lsh_attention(
        query_key,
        value,
        buckets,
        chunk_length=layer.chunk_length,
        num_chunks_before=layer.num_chunks_before,
        num_chunks_after=layer.num_chunks_after,
        causal=layer.causal,
        scope=layer.scope,
        mask=mask,
        wrap=layer.wrap,
        discount_duplicates=layer.discount_duplicates,
        probability=probability if layer.duplicates == "importance" else None,
    )
    return from_heads(layer, attended)
