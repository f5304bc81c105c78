"""Gradients of `ReversibleSequence`: right whatever its branches do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import ReversibleBlock, ReversibleSequence
from tests.layers.test_reversible_sequence import (
    BATCH,
    DIM,
    LENGTH,
    SHAPE,
    Scale,
    make_inputs,
    make_sequence,
    simple,
)

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


def test_equal_plain_backpropagation(execution):
    sequence = built(make_sequence())
    expected = check_against_plain(
        sequence, gradient_function(sequence), [make_inputs()], execution
    )
    assert all(np.any(one) for one in expected)


def test_equal_plain_backpropagation_with_a_mask():
    sequence = built(make_sequence())
    mask = tf.constant(np.arange(LENGTH) < np.array([[LENGTH], [9]]))
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


def test_two_forward_passes_before_one_backward_pass(execution):
    sequence = make_sequence()
    sequence = built(ReversibleSequence(sequence.blocks[:1]))

    def product(x):
        one = sequence(x, training=True)
        other = sequence(2 * x[::-1], training=True)
        return tf.reduce_sum(one * tf.sin(other) * WEIGHTS)

    run = gradient_function(sequence, product)
    check_against_plain(sequence, run, [make_inputs()], execution)


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


def expected_losses(sequence, x):
    first, second = sequence.blocks
    losses = []
    scaled = x * first.attention.scale
    losses.append(3 * tf.reduce_mean(scaled**2))
    y1 = x + scaled
    kernel, bias = first.feed_forward.kernel, first.feed_forward.bias
    dense = tf.tanh(y1 @ kernel.value + bias)
    losses.append(0.2 * tf.reduce_sum(dense**2) / BATCH)
    losses.append(0.3 * tf.reduce_sum(kernel.value**2))
    y2 = x + dense
    scaled = tf.tanh(y2 * second.attention.scale)
    losses.append(0.1 * tf.reduce_sum(abs(scaled)) / BATCH)
    scaled = (y1 + scaled) * second.feed_forward.scale
    losses.append(3 * tf.reduce_mean(scaled**2))
    return losses


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


def test_third_party_layers_are_exact(execution):
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
    x = first.drop(first.dense(make_inputs()), training=True)
    np.testing.assert_allclose(
        first.statistics.moving_mean,
        0.5 * np.mean(x, axis=(0, 1)),
        atol=1e-6,
    )


def test_state_of_one_pass_is_where_the_next_begins(execution):
    sequence = make_third_party()

    def twice(x):
        return tf.reduce_sum(sequence(x, training=True) ** 2) + tf.reduce_sum(
            tf.sin(sequence(x + 1, training=True))
        )

    run = gradient_function(sequence, twice)
    check_against_plain(sequence, run, [make_inputs()], execution)
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


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_equals_plain_backpropagation(jit_compile):
    sequence = make_third_party()
    inputs = keras.Input((LENGTH, DIM))
    model = keras.Model(inputs, sequence(inputs))
    start, results = model.get_weights(), []
    seeds = state_of(sequence)
    for sequence.recompute in (False, True):
        model.set_weights(start)
        set_state(sequence, seeds)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
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
    blocks = [ReversibleBlock(*branches[i : i + 2]) for i in (0, 2)]
    blocks = [
        ReversibleBlock(*block.branches, dtype="float64") for block in blocks
    ]
    sequence = built(ReversibleSequence(blocks, dtype="float64"))
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
