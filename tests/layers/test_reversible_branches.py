"""`ReversibleSequence` around branches with losses, state or frozen weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.executions import EXECUTIONS
from tests.support.stacks import (
    BATCH,
    DIM,
    LENGTH,
    WEIGHTS,
    Scale,
    assert_same,
    built,
    check_against_plain,
    gradient_function,
    make_inputs,
    make_sequence,
    set_state,
    simple,
    state_of,
)

# --- Losses ---


class AddsLoss(keras.layers.Layer):
    """`scale * x`, with `3 * mean(output**2)` as a loss."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

    def call(self, inputs):
        outputs = inputs * self.scale
        self.add_loss(3 * keras.ops.mean(outputs**2))
        return outputs


def make_lossy():
    """Losses of all kinds: added, of activities and of weights."""
    return simple(
        AddsLoss(),
        keras.layers.Dense(
            DIM,
            "tanh",
            activity_regularizer=keras.regularizers.L2(0.2),
            kernel_regularizer=keras.regularizers.L2(0.3),
        ),
        Scale(activity_regularizer=keras.regularizers.L1(0.1)),
        AddsLoss(),
    )


def penalized_rows():
    """What Keras divides penalties of activities by: 1 in version 3.13."""
    layer = keras.layers.ActivityRegularization(l1=1.0)
    layer(tf.ones((BATCH, 1)))
    return BATCH / float(layer.losses[0])


def expected_losses(sequence, x):
    first, second = sequence.blocks
    losses = []
    scaled = x * first.attention.scale
    losses.append(3 * tf.reduce_mean(scaled**2))
    y1 = x + scaled
    kernel, bias = first.feed_forward.kernel, first.feed_forward.bias
    dense = tf.tanh(y1 @ kernel.value + bias)
    losses.append(0.2 * tf.reduce_sum(dense**2) / penalized_rows())
    losses.append(0.3 * tf.reduce_sum(kernel.value**2))
    y2 = x + dense
    scaled = tf.tanh(y2 * second.attention.scale)
    losses.append(0.1 * tf.reduce_sum(abs(scaled)) / penalized_rows())
    scaled = (y1 + scaled) * second.feed_forward.scale
    losses.append(3 * tf.reduce_mean(scaled**2))
    return losses


@pytest.mark.covering(1)
@pytest.mark.parametrize("recompute", [False, True])
def test_losses_inside_count_once(recompute, execution):
    sequence = built(make_lossy())
    sequence.recompute = recompute
    x = make_inputs()

    def found_losses(x):
        sequence(x, training=True)
        return list(sequence.losses)

    def total(losses):
        return lambda x: tf.add_n(losses(x))

    def expected(x):
        return expected_losses(sequence, x)

    for _ in range(2):
        losses = np.sort(found_losses(x))
        np.testing.assert_allclose(losses, np.sort(expected(x)), rtol=1e-5)
    assert_same(
        execution(gradient_function(sequence, total(found_losses)))(x),
        gradient_function(sequence, total(expected))(x),
    )


def test_losses_of_a_model_count_once():
    losses = []
    sequence = built(make_lossy())
    for sequence.recompute in (False, True):
        inputs = keras.Input((LENGTH, DIM))
        model = keras.Model(inputs, sequence(inputs))
        model.compile(loss="mse")
        x = make_inputs()
        losses.append(model.evaluate(x, model(x), verbose=0))
    expected = sum(expected_losses(sequence, x))
    np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-5)


# --- Third parties ---


class ThirdParty(keras.layers.Layer):
    """Dropout of Keras, batch statistics and a counter."""

    def build(self, input_shape):
        self.dense = keras.layers.Dense(input_shape[-1], "tanh")
        self.dense.build(input_shape)
        self.drop = keras.layers.Dropout(0.3, seed=1)
        self.statistics = keras.layers.BatchNormalization(momentum=0.5)
        self.statistics.build(input_shape)
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, inputs, training=None):
        self.calls.assign_add(1)
        x = self.drop(self.dense(inputs), training=training)
        return self.statistics(x, training=training)


def make_third_party():
    return built(simple(*(ThirdParty() for _ in range(4))))


@pytest.mark.parametrize(
    "name", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)]
)
def test_third_party_layers_are_exact(name):
    execution = EXECUTIONS[name]
    sequence = make_third_party()
    before = state_of(sequence)
    run = gradient_function(sequence)
    check_against_plain(sequence, run, [make_inputs()], execution)
    after = state_of(sequence)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    for block in sequence.blocks:
        for branch in block.branches:
            assert branch.calls.numpy() == 1
    first = sequence.blocks[0].attention
    first.drop.seed_generator.state.assign([1, 0])
    drop = execution(lambda x: first.drop(first.dense(x), training=True))
    x = drop(make_inputs())
    np.testing.assert_allclose(
        first.statistics.moving_mean,
        0.5 * np.mean(x, axis=(0, 1)),
        atol=1e-6,
    )


class WithoutTraining(keras.layers.Layer):
    """Dropout in a layer whose `call` takes no `training`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = keras.layers.Dropout(0.3, seed=1)

    def call(self, inputs):
        return self.drop(keras.ops.tanh(inputs))

    def compute_output_shape(self, input_shape):
        return input_shape


def test_training_reaches_layers_inside_in_both_passes():
    sequence = built(simple(WithoutTraining(), Scale()))
    run = gradient_function(sequence)
    check_against_plain(sequence, run, [make_inputs()])


@pytest.mark.parametrize(
    "name", ["eager", pytest.param("graph", marks=pytest.mark.slow)]
)
def test_state_of_one_pass_is_where_the_next_begins(name):
    sequence = make_third_party()

    def twice(x):
        return tf.reduce_sum(sequence(x, training=True) ** 2) + tf.reduce_sum(
            tf.sin(sequence(x + 1, training=True))
        )

    run = gradient_function(sequence, twice)
    check_against_plain(sequence, run, [make_inputs()], EXECUTIONS[name])
    assert sequence.blocks[1].feed_forward.calls.numpy() == 2


def test_inference_changes_no_statistics():
    sequence = make_third_party()
    moving = sequence.blocks[0].attention.statistics.moving_mean
    sequence(make_inputs(), training=False)
    np.testing.assert_array_equal(moving, np.zeros(DIM))


@pytest.mark.parametrize(
    "frozen",
    [
        lambda s: [s.blocks[0]],
        lambda s: [s.blocks[0].attention, s.blocks[1].feed_forward.layer],
        lambda s: [s.blocks[1].attention.layer.query],
        lambda s: s.blocks,
    ],
)
def test_frozen_layers_get_no_gradients(frozen):
    sequence = built(make_sequence())
    num_variables = len(sequence.trainable_variables)
    for layer in frozen(sequence):
        layer.trainable = False
    assert len(sequence.trainable_variables) < num_variables
    check_against_plain(sequence, gradient_function(sequence), [make_inputs()])


def test_fit_equals_plain_backpropagation():
    sequence = make_third_party()
    inputs = keras.Input((LENGTH, DIM))
    model = keras.Model(inputs, sequence(inputs))
    start, results = model.get_weights(), []
    seeds = state_of(sequence)
    for sequence.recompute in (False, True):
        model.set_weights(start)
        set_state(sequence, seeds)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        history = model.fit(
            make_inputs(), WEIGHTS, batch_size=1, epochs=2, verbose=0
        )
        results.append([history.history["loss"], *model.get_weights()])
    assert_same(*results)


# --- Second order ---


def second_order(sequence, x, direction):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(sequence(x) ** 2)
        slope = tf.reduce_sum(inner.gradient(loss, x) * direction)
    return outer.gradient(slope, x)


def test_second_order_gradients_are_refused_or_right():
    branches = [Scale(dtype="float64") for _ in range(4)]
    sequence = built(simple(*branches, dtype="float64"))
    x, direction = make_inputs("float64"), make_inputs("float64", seed=1)
    with pytest.raises(LookupError, match="Second-order gradients"):
        second_order(sequence, x, direction)
    sequence.recompute = False
    found = second_order(sequence, x, direction)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(sequence(x) ** 2)
        return tape.gradient(loss, x)

    step = 1e-6 * direction
    numeric = (gradient(x + step) - gradient(x - step)) / 2e-6
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-7)
