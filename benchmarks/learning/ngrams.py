"""Embeddings of hashed n-grams beside those of bytes.

A byte says little, and a model of few steps and layers does not get from bytes
to words. So a position's embedding is, beside its byte's, those of the n-grams
that end there, from tables that they are hashed into (Pagnoni et al. 2024,
"Byte Latent Transformer", arXiv 2412.09871, section 3.2.1).

A row of a table is seen rarely and begins small, so that texts are not told
apart by what their n-grams happen to begin with. Its factor `RATE` makes it
learn as many times as fast as the rest; bytes begin as small as n-grams, or
these would be lost beside them.
"""

import keras
from keras import ops

import keras_reformer

RATE = 5.0
BYTE_SCALE = 0.05
INITIAL_STD = 0.02

_PRIME = 2**31 - 1


@keras.saving.register_keras_serializable(package="benchmarks")
class NgramEmbedding(keras.layers.Layer):
    """Token ids to a sum of the embeddings of the n-grams that end there.

    Args:
        sizes: tuple of ints. The lengths of n-grams.
        rows: int. Rows of each length's table; n-grams may share one.
        table_dim: int. Width of the tables.
        output_dim: int. Width of the outputs.
        dropout: float. Of what comes out of the tables.

    Call arguments:
        token_ids: int tensor `(batch, length)`.

    Returns:
        Float tensor `(batch, length, output_dim)`.
    """

    def __init__(
        self,
        sizes,
        rows,
        table_dim,
        output_dim,
        dropout=0.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.sizes = tuple(sizes)
        self.rows = rows
        self.table_dim = table_dim
        self.output_dim = output_dim
        self.tables = [
            keras.layers.Embedding(
                rows,
                table_dim,
                keras.initializers.RandomNormal(
                    stddev=INITIAL_STD / RATE, seed=seed
                ),
                name=f"of_{size}",
            )
            for size in self.sizes
        ]
        self.dropout = keras_reformer.Dropout(dropout, seed=seed)
        self.projection = keras.layers.Dense(
            output_dim, kernel_initializer=_glorot(seed), name="projection"
        )

    def call(self, token_ids, training=None):
        hashes = hash_ngrams(token_ids, self.sizes)
        found = [
            table(ops.cast(each % self.rows, "int32"))
            for table, each in zip(self.tables, hashes, strict=True)
        ]
        found = RATE * ops.concatenate(found, axis=-1)
        return self.projection(self.dropout(found, training=training))


def _glorot(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def hash_ngrams(token_ids, sizes):
    """Hashes of the n-grams that end at each position.

    Args:
        token_ids: int tensor `(batch, length)`.
        sizes: ints, rising. The lengths of n-grams; those that begin before
            the text hold zeros.

    Returns:
        List of int64 tensors `(batch, length)`, not negative.
    """
    shifted = ops.cast(token_ids, "int64")
    value, found = ops.zeros_like(shifted), []
    for size in range(1, max(sizes) + 1):
        value = (value * 259 + shifted + 1) % _PRIME
        if size in sizes:
            found.append(value * 48271 % _PRIME)
        shifted = ops.pad(shifted[:, :-1], [[0, 0], [1, 0]])
    return found


def token_inputs(length):
    """Inputs of a Functional model of token ids and their mask."""
    return {
        name: keras.Input((length,), dtype=dtype, name=name)
        for name, dtype in (("token_ids", "int32"), ("padding_mask", "bool"))
    }


def in_front(model, token_embedding, ngrams, inputs):
    """What a model of token embeddings makes of bytes and their n-grams."""
    token_ids = inputs["token_ids"]
    embeddings = BYTE_SCALE * token_embedding(token_ids) + ngrams(token_ids)
    mask = inputs["padding_mask"]
    return model({"token_embeddings": embeddings, "padding_mask": mask})
