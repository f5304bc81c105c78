"""Layers that stand at several places of a stack, as in tied Transformers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    Dropout,
    FeedForward,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)


class Recorder(keras.layers.Layer):
    """Dropout of ones: its output shows the mask alone. Counts its calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = Dropout(0.5, seed=3)

    def build(self, input_shape):
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def call(self, inputs, training=None):
        if training:
            self.calls.assign(self.calls + 1)
        ones = keras.ops.ones_like(inputs)
        return self.dropout(ones, training=training) * self.calls


class Nothing(keras.layers.Layer):
    def call(self, inputs):
        return 0.0 * inputs


def make_recorded(recompute):
    recorder = Recorder()
    blocks = [ReversibleBlock(recorder, Nothing()) for _ in range(2)]
    return recorder, ReversibleSequence(blocks, merge=None, recompute=recompute)


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("graph", [False, True])
def test_every_use_draws_and_counts_anew(recompute, graph):
    recorder, sequence = make_recorded(recompute)
    x = tf.zeros((1, 30, 4))
    sequence(x)
    call = tf.function(sequence) if graph else sequence
    outputs, _ = call(x, training=True)
    # The first mask counts 2 once kept, the second one 4.
    assert set(np.unique(outputs)) == {0.0, 2.0, 4.0, 6.0}
    assert recorder.calls == 2.0
    again, _ = call(x, training=True)
    assert recorder.calls == 4.0
    assert (outputs > 0).numpy().tolist() != (again > 0).numpy().tolist()


def make_tied(recompute):
    keras.utils.set_random_seed(1)
    attention = LSHSelfAttention(
        2, 3, num_hashes=2, num_buckets=4, chunk_length=4, dropout=0.2, seed=1
    )
    block = ReversibleBlock(
        PreNormalization(attention, dropout=0.2, seed=2),
        PreNormalization(FeedForward(7, dropout=0.2, seed=3), seed=4),
    )
    return ReversibleSequence([block] * 2, recompute=recompute)


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_gradients_are_those_of_plain_backpropagation(jit_compile):
    x = keras.random.normal((2, 13, 5), seed=4)
    results = []
    for recompute in (True, False):
        sequence = make_tied(recompute)
        sequence(x)

        @tf.function(autograph=False, jit_compile=jit_compile)
        def step(sequence=sequence):
            with tf.GradientTape() as tape:
                y = sequence(x, training=True)
                loss = tf.reduce_sum(y**2)
            gradients = tape.gradient(loss, sequence.trainable_variables)
            return [loss, *gradients]

        results.append(step())
    for ours, plain in zip(*results, strict=True):
        scale = np.abs(plain).max()
        assert np.abs(ours - plain).max() <= 1e-5 * scale
