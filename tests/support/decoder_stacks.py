"""Small reversible decoders that attend to a context, and their gradients."""

import numpy as np
import tensorflow as tf

from keras_reformer.layers import (
    CrossAttention,
    FeedForward,
    LocalSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)
from tests.support.stacks import BATCH, SHAPE, WEIGHTS, set_weights_apart

KEYS, CONTEXT_DIM = 7, 3
CONTEXT_SHAPE = (BATCH, KEYS, CONTEXT_DIM)
CONTEXT_MASK = np.arange(KEYS) < np.array([[KEYS], [4]])


def make_block(dtype=None, **options):
    """A block of three branches, with dropout in all places."""
    options = {"dropout": 0.1, "seed": 1, "dtype": dtype, **options}
    layers = [
        LocalSelfAttention(2, 3, chunk_length=4, causal=True, **options),
        FeedForward(7, **options),
        CrossAttention(2, 3, query_chunk_length=4, **options),
    ]
    return ReversibleBlock(
        *(PreNormalization(layer, **options) for layer in layers), dtype=dtype
    )


def make_decoder(dtype=None, num_blocks=2, dropout=0.1, **options):
    """A built stack of such blocks with weights that no initializer gives."""
    blocks = [make_block(dtype, dropout=dropout) for _ in range(num_blocks)]
    sequence = ReversibleSequence(blocks, dtype=dtype, **options)
    sequence.build(SHAPE, CONTEXT_SHAPE)
    set_weights_apart(sequence)
    return sequence


def make_context(dtype="float32"):
    return tf.random.stateless_normal(CONTEXT_SHAPE, [7, 2], dtype=dtype)


def gradient_function(sequence):
    """Gradients by the input, the context and every variable."""

    def run(x, context):
        variables = [v.value for v in sequence.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch((x, context))
            output = sequence(
                x,
                training=True,
                context=context,
                context_mask=CONTEXT_MASK,
            )
            weights = tf.cast(WEIGHTS[..., : output.shape[-1]], output.dtype)
            loss = tf.reduce_sum(output * weights)
        return loss, *tape.gradient(loss, [x, context, *variables])

    return run
