"""Gradients of `ReversibleSequence`: right whatever its branches do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import ReversibleSequence
from keras_reformer.ops.attention import hashing
from keras_reformer.ops.reversible.recompute import save_for_backward
from tests.support.executions import EXECUTIONS
from tests.support.stacks import (
    BATCH,
    DIM,
    LENGTH,
    WEIGHTS,
    built,
    check_against_plain,
    gradient_function,
    loss_function,
    make_inputs,
    make_sequence,
    set_state,
    simple,
    state_of,
)


@pytest.mark.parametrize(
    "name", ["eager", pytest.param("graph", marks=pytest.mark.slow), "xla"]
)
def test_equal_plain_backpropagation(name):
    execution = EXECUTIONS[name]
    sequence = built(make_sequence())
    expected = check_against_plain(
        sequence, gradient_function(sequence), [make_inputs()], execution
    )
    assert all(np.any(one) for one in expected)


def test_equal_plain_backpropagation_with_a_mask():
    sequence = built(make_sequence())
    mask = tf.constant(np.arange(LENGTH) < np.array([[LENGTH], [9]]))
    sequence.blocks[0].attention.layer.num_hashes = 3
    run = gradient_function(sequence, mask=mask)
    check_against_plain(sequence, run, [make_inputs()])


def test_dropout_is_on_and_changes_the_gradients():
    sequence = built(make_sequence())
    run = gradient_function(sequence)
    first, second = run(make_inputs()), run(make_inputs())
    for one, other in zip(first, second, strict=True):
        assert not np.allclose(
            tf.convert_to_tensor(one), tf.convert_to_tensor(other), rtol=1e-3
        )


@pytest.mark.parametrize("merge", ["mean", None])
def test_other_merges_and_a_pair_of_inputs(merge):
    sequence = built(make_sequence(merge=merge))
    pair = make_inputs(), make_inputs(seed=1)

    def run(*pair):
        with tf.GradientTape() as tape:
            tape.watch(pair)
            outputs = sequence(pair, training=True)
            # The second stream's gradient alone, or both streams'.
            output = outputs if merge else outputs[1]
            loss = tf.reduce_sum(output * WEIGHTS[..., :DIM])
        variables = [v.value for v in sequence.trainable_variables]
        return tape.gradient(
            loss, [*pair, *variables], unconnected_gradients="zero"
        )

    check_against_plain(sequence, run, pair)


def test_equal_finite_differences():
    """Rotations and dropout are drawn anew from the same state each time."""
    sequence = built(make_sequence("float64"))
    x = make_inputs("float64")
    state = state_of(sequence)
    gradients = gradient_function(sequence)(x)[1:]
    loss, step = tf.function(loss_function(sequence), autograph=False), 1e-6
    generator = np.random.default_rng(1)
    sources = [x, *sequence.trainable_variables]
    for source, gradient in zip(sources, gradients, strict=True):
        direction = generator.normal(size=source.shape)
        values = []
        for sign in (1, -1):
            set_state(sequence, state)
            change = sign * step * direction
            if source is x:
                values.append(loss(x + change))
            else:
                before = source.numpy()
                source.assign(before + change)
                values.append(loss(x))
                source.assign(before)
        numeric = (values[0] - values[1]) / (2 * step)
        analytic = tf.reduce_sum(gradient * direction)
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["eager", pytest.param("graph", marks=pytest.mark.slow)]
)
def test_two_forward_passes_before_one_backward_pass(name):
    sequence = make_sequence()
    sequence = built(ReversibleSequence(sequence.blocks[:1]))

    def product(x):
        one = sequence(x, training=True)
        other = sequence(2 * x[::-1], training=True)
        return tf.reduce_sum(one * tf.sin(other) * WEIGHTS)

    run = gradient_function(sequence, product)
    check_against_plain(sequence, run, [make_inputs()], EXECUTIONS[name])


class Decides(keras.layers.Layer):
    """`factor * x`, with another factor at each decision."""

    decisions = 0

    def _decide(self):
        self.decisions += 1
        return 1.0 + self.decisions

    def call(self, inputs):
        return save_for_backward(self._decide) * inputs

    def compute_output_shape(self, input_shape):
        return input_shape


def test_decisions_are_replayed():
    sequence = built(simple(*(Decides() for _ in range(4))))
    x = make_inputs()
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = sequence(x)
    gradient = tape.gradient(output, x)
    # The stack is linear and works on each element alone.
    both = np.array(output).reshape(BATCH, LENGTH, 2, DIM).sum(axis=2)
    np.testing.assert_allclose(gradient * x, both, rtol=1e-3)
    for block in sequence.blocks:
        assert [branch.decisions for branch in block.branches] == [1, 1]


def test_lsh_attention_hashes_once(monkeypatch):
    sequence = built(make_sequence())
    calls, hash_vectors = [], hashing.hash_vectors

    def counting(*arguments, **options):
        calls.append(arguments)
        return hash_vectors(*arguments, **options)

    monkeypatch.setattr(hashing, "hash_vectors", counting)
    gradient_function(sequence)(make_inputs())
    assert len(calls) == 1
