"""`Recompute`: the wrapped layer, and its gradients, whatever it does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.layers import Recompute
from keras_reformer.ops.attention import hashing
from tests.support.executions import EXECUTIONS
from tests.support.layer_checks import check_layer
from tests.support.planned_memory import temporaries
from tests.support.stacks import (
    assert_same,
    make_inputs,
    set_state,
    simple,
    state_of,
)

SHAPE = (2, 13, 5)


@keras.saving.register_keras_serializable(package="test_recompute")
class Everything(keras.layers.Layer):
    """Dropout, batch statistics, a counter and losses; no `training`."""

    supports_masking = True

    def build(self, input_shape):
        self.dense = keras.layers.Dense(
            input_shape[-1], "tanh", activity_regularizer="l2"
        )
        self.dense.build(input_shape)
        self.drop = keras.layers.Dropout(0.3, seed=1)
        self.statistics = keras.layers.BatchNormalization(momentum=0.5)
        self.statistics.build(input_shape)
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, inputs, mask=None):
        self.calls.assign_add(1)
        outputs = self.statistics(self.drop(self.dense(inputs)))
        self.add_loss(3 * keras.ops.mean(outputs**2))
        if mask is None:
            return outputs
        return keras.ops.where(mask[..., None], outputs, 0.0)


def gradients_of(layer, inner, *inputs, **options):
    """Outputs, losses and gradients by all inputs and weights."""

    def run(*inputs):
        variables = [v.value for v in inner.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.nest.flatten(layer(*inputs, training=True, **options))
            # Their order may be another.
            losses = sum(layer.losses, tf.constant(0.0))
            total = sum(tf.reduce_sum(tf.sin(x)) for x in outputs) + losses
        gradients = tape.gradient(total, [*inputs, *variables])
        return [*outputs, losses, *gradients]

    return run


def check_equals(inner, *inputs, execution=lambda f: f, **options):
    """The layer and its gradients, with and without `Recompute`."""
    layer = Recompute(inner)
    layer(*inputs, **options)
    before = state_of(inner)
    expected = execution(gradients_of(inner, inner, *inputs, **options))(
        *inputs
    )
    after = state_of(inner)
    set_state(inner, before)
    found = execution(gradients_of(layer, inner, *inputs, **options))(*inputs)
    assert len(found) == len(expected) > len(inputs)
    assert_same(found, expected, 1e-6)
    for one, other in zip(state_of(inner), after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    return expected


@pytest.mark.parametrize(
    "name", ["eager", pytest.param("graph", marks=pytest.mark.slow), "xla"]
)
def test_multi_head_attention_of_keras(name):
    """Several inputs, each with a mask, and dropout of attention weights."""
    layer = keras.layers.MultiHeadAttention(2, 4, dropout=0.1, seed=1)
    query, value = make_inputs(), make_inputs(seed=1)[:, :9]
    _, _, _, *gradients = check_equals(
        layer,
        query,
        value,
        value + 1,
        query_mask=tf.sequence_mask([13, 7], 13),
        value_mask=tf.sequence_mask([4, 9], 9),
        return_attention_scores=True,
        execution=EXECUTIONS[name],
    )
    assert all(np.any(x) for x in gradients)


@pytest.mark.parametrize(
    "name", ["eager", pytest.param("graph", marks=pytest.mark.slow)]
)
def test_losses_count_once_and_state_changes_once(name):
    layer = Everything()
    mask = tf.sequence_mask([13, 7], 13)
    check_equals(layer, make_inputs(), mask=mask, execution=EXECUTIONS[name])
    # Of `check_equals`: a first call, then one more from its state.
    assert layer.calls.numpy() == 2


def test_hashes_once(monkeypatch):
    calls, hash_vectors = [], hashing.hash_vectors

    def counting(*arguments, **options):
        calls.append(arguments)
        return hash_vectors(*arguments, **options)

    inner = keras_reformer.LSHSelfAttention(
        2, 3, chunk_length=4, num_buckets=4, dropout=0.1, seed=1
    )
    check_equals(inner, make_inputs())
    layer = Recompute(inner)
    monkeypatch.setattr(hashing, "hash_vectors", counting)
    gradients_of(layer, inner)(make_inputs())
    assert len(calls) == 1
    # Within a reversible stack, which runs it on reconstructed inputs.
    stack = simple(layer, Recompute(keras.layers.Dense(5)))
    stack.build(SHAPE)
    gradients_of(stack, stack)(make_inputs())
    assert len(calls) == 2


def test_masks_are_filled_in():
    seen = {}

    class Spy(keras.layers.Layer):
        supports_masking = True

        def call(self, query, value, value_mask=None, training=None):
            seen.update(value_mask=value_mask, training=training)
            return query

    ids = np.array([[1, 2, 0], [3, 0, 0]])
    x = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    y = Recompute(Spy())(x, x, training=True)
    np.testing.assert_array_equal(seen["value_mask"], ids > 0)
    assert seen["training"] is True
    # Downstream layers see the mask too.
    assert keras.layers.Masking().compute_mask(y) is not None
    layer = Recompute(Everything())
    layer(x)
    np.testing.assert_array_equal(layer(x)[~(ids > 0)], 0.0)


def test_layer_is_at_home_in_keras():
    def make_layer(dtype=None):
        inner = keras_reformer.FeedForward(7, dropout=0.1, seed=3, dtype=dtype)
        return Recompute(inner, dtype=dtype)

    check_layer(make_layer, SHAPE)


def test_attention_of_keras_is_saved_and_trained(tmp_path):
    inputs = keras.Input((None, 5)), keras.Input((None, 5))
    attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
    outputs = Recompute(attention)(*inputs, use_causal_mask=True)
    model = keras.Model(inputs, outputs)
    data = [np.array(make_inputs(seed=seed)) for seed in (1, 2)]
    expected = model.predict(data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(data, verbose=0), expected)
    before = [x.copy() for x in loaded.get_weights()]
    loaded.compile("sgd", "mse", run_eagerly=True)
    loaded.fit(data, data[0], verbose=0)
    changed = [
        (a != b).any()
        for a, b in zip(before, loaded.get_weights(), strict=True)
    ]
    # The softmax does not see the bias of keys.
    assert changed.count(False) <= 1


# XLA's flags are read once, so steps are compiled in a process of their own.
_COMPILE = """
import sys

import keras
import tensorflow as tf

from keras_reformer import Recompute

for depth in map(int, sys.argv[1:]):
    layers = [
        keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
        for _ in range(depth)
    ]
    layers = list(map(Recompute, layers))
    x = tf.ones((1, 256, 8))
    for layer in layers:
        layer(x, x)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = y + layer(y, y, training=True)
        return tape.gradient(y, x)

    step.__name__ = f"step_of_{depth}_blocks"
    tf.function(step, jit_compile=True, autograph=False)(x)
"""


@pytest.mark.slow
def test_compiled_steps_keep_no_scores(tmp_path):
    """Nor dropout masks: layers take turns with the same memory."""
    few, many = temporaries(tmp_path, _COMPILE, [2, 6])
    scores = 4 * 2 * 256**2
    assert few > scores
    assert (many - few) / 4 < 0.1 * scores


@pytest.mark.parametrize("layer", [None, "gelu", keras.layers.Dense])
def test_refuses_what_is_no_layer(layer):
    with pytest.raises(ValueError, match="Received: layer="):
        Recompute(layer)


def test_refuses_layers_of_a_scope_that_draws_anew():
    with keras.RematScope():
        layer = keras.layers.Dropout(0.5)
    with pytest.raises(ValueError, match="outside of `keras.RematScope`"):
        Recompute(layer)(make_inputs(), training=True)
