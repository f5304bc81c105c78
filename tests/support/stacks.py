"""Small reversible stacks, their gradients, and what these must equal."""

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)

BATCH, LENGTH, DIM = 2, 13, 5
SHAPE = (BATCH, LENGTH, DIM)
register = keras.saving.register_keras_serializable(
    package="tests.support.stacks"
)


@register
class Scale(keras.layers.Layer):
    """`tanh(x * scale)`: about the simplest branch with a weight."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

    def call(self, inputs):
        return keras.ops.tanh(inputs * self.scale)


def make_sequence(dtype=None, num_blocks=2, **options):
    """An LSH and a local block, with dropout in all places."""

    def block(attention, **arguments):
        attention = attention(
            2,
            3,
            chunk_length=4,
            causal=True,
            dropout=0.1,
            seed=1,
            dtype=dtype,
            **arguments,
        )
        feed_forward = FeedForward(7, dropout=0.1, seed=2, dtype=dtype)
        normalized = [
            PreNormalization(layer, dropout=0.1, seed=seed, dtype=dtype)
            for seed, layer in enumerate([attention, feed_forward])
        ]
        return ReversibleBlock(*normalized, dtype=dtype)

    blocks = [
        block(LSHSelfAttention, num_hashes=1, num_buckets=4),
        block(LocalSelfAttention),
    ]
    return ReversibleSequence(blocks[:num_blocks], dtype=dtype, **options)


def simple(*branches, **options):
    pairs = zip(branches[::2], branches[1::2], strict=True)
    dtype = options.get("dtype")
    blocks = [ReversibleBlock(f, g, dtype=dtype) for f, g in pairs]
    return ReversibleSequence(blocks, **options)


def make_inputs(dtype="float32", seed=0):
    return tf.random.stateless_normal(SHAPE, [seed, 2], dtype=dtype)


WEIGHTS = np.random.default_rng(0).normal(size=(BATCH, LENGTH, 2 * DIM))


def set_weights_apart(layer):
    """Gives every trainable variable values that no initializer gives."""
    generator = np.random.default_rng(5)
    for variable in layer.trainable_variables:
        noise = generator.normal(size=variable.shape)
        variable.assign(variable + 0.1 * noise.astype(variable.dtype))


def state_of(layer):
    return [variable.numpy() for variable in layer.non_trainable_variables]


def set_state(layer, state):
    for variable, value in zip(
        layer.non_trainable_variables, state, strict=True
    ):
        variable.assign(value)


def loss_function(sequence, **options):
    def loss(x):
        output = sequence(x, training=True, **options)
        weights = tf.cast(WEIGHTS[..., : output.shape[-1]], output.dtype)
        total = tf.reduce_sum(output * weights)
        return total + sum(tf.cast(one, total.dtype) for one in sequence.losses)

    return loss


def gradient_function(sequence, loss=None, **options):
    """Loss, and gradients by the input and by every variable."""
    loss = loss or loss_function(sequence, **options)

    def run(x):
        variables = [v.value for v in sequence.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = loss(x)
        return total, *tape.gradient(total, [x, *variables])

    return run


def assert_same(found, expected, relative=1e-5):
    for one, other in zip(found, expected, strict=True):
        one, other = tf.convert_to_tensor(one), tf.convert_to_tensor(other)
        difference = np.linalg.norm(one - other)
        assert difference <= relative * np.linalg.norm(other)


def check_against_plain(
    sequence, run, arguments, execution=lambda f: f, relative=1e-5
):
    """`run` gives the same, and leaves the same, with and without recompute."""
    before = state_of(sequence)
    sequence.recompute = False
    # The same execution: Keras's dropout draws otherwise under XLA.
    expected = execution(run)(*arguments)
    state = state_of(sequence)
    set_state(sequence, before)
    sequence.recompute = True
    found = execution(run)(*arguments)
    assert_same(found, expected, relative)
    for one, other in zip(state_of(sequence), state, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    return expected


def built(sequence, shape=SHAPE):
    sequence.build(shape)
    set_weights_apart(sequence)
    return sequence
