"""A Functional model made of the layers, where the ready models do not fit.

    python examples/functional_model.py [--steps 200]

Predicts the next byte of Python's own standard library with two reversible
blocks, one local and one LSH, put together by hand: any layer with equal input
and output shape may stand in a block, and Keras's own go around them.
"""

import argparse

import keras

import keras_reformer
from keras_reformer import data

LENGTH = 1024
WIDTH = 64


def make_model():
    """Embeddings and positions, two blocks, a head."""
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    x = keras.layers.Embedding(data.ByteTokenizer.vocabulary_size, WIDTH)(
        token_ids
    )
    positions = keras_reformer.AxialPositionEmbedding((32, 32), (16, 48))
    x = keras.layers.Add()([x, positions(x)])
    attention = (
        keras_reformer.LocalSelfAttention(2, 32, chunk_length=32, causal=True),
        keras_reformer.LSHSelfAttention(
            2, 32, chunk_length=32, num_buckets=32, causal=True
        ),
    )
    blocks = [
        keras_reformer.ReversibleBlock(
            keras_reformer.PreNormalization(layer, dropout=0.05),
            keras_reformer.PreNormalization(keras_reformer.FeedForward(128)),
        )
        for layer in attention
    ]
    x = keras_reformer.ReversibleSequence(blocks, merge="mean")(x)
    x = keras.layers.LayerNormalization()(x)
    logits = keras.layers.Dense(data.ByteTokenizer.vocabulary_size)(x)
    return keras.Model(token_ids, logits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    corpus = data.split_by_position(data.read_corpus("python"))
    model = make_model()
    model.compile(
        keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras_reformer.BitsPerByte()],
    )
    model.fit(
        data.training_windows(corpus.train, LENGTH, batch_size=2, seed=0),
        steps_per_epoch=options.steps,
        shuffle=False,
        validation_data=data.evaluation_windows(
            corpus.validation, LENGTH, batch_size=2, max_windows=16
        ),
    )


if __name__ == "__main__":
    main()
