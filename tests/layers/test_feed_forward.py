import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import FeedForward, feed_forward
from tests.support.layer_checks import check_layer

BATCH, LENGTH, DIM, INNER = 2, 13, 5, 7


def make_layer(**options):
    options = {"bias_initializer": "normal", "seed": 3, **options}
    return FeedForward(INNER, **options)


def make_inputs(dtype="float64"):
    return tf.random.stateless_normal((BATCH, LENGTH, DIM), [1, 2], dtype=dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"gated": True, "activation": "silu", "dropout": 0.1},
        {"chunk_length": 4, "dropout": 0.1, "shared_dropout": True},
    ],
)
def test_layer_is_at_home_in_keras(options):
    check_layer(
        lambda dtype=None: make_layer(dtype=dtype, **options),
        (BATCH, LENGTH, DIM),
    )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("chunk_length", [None, 4])
def test_equals_the_equations(gated, chunk_length):
    layer = make_layer(
        activation="tanh",
        gated=gated,
        chunk_length=chunk_length,
        dtype="float64",
    )
    x = make_inputs()
    output = layer(x)

    def dense(sublayer, x):
        return x @ sublayer.kernel.numpy() + sublayer.bias.numpy()

    hidden = np.tanh(dense(layer.intermediate, x.numpy()))
    if gated:
        hidden = hidden * dense(layer.gate, x.numpy())
    expected = dense(layer.output_dense, hidden)
    np.testing.assert_allclose(output, expected, atol=1e-12)


def outputs_and_gradients(layer, weights, training=True):
    def run(x):
        variables = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, training=training)
            loss = tf.reduce_sum(output * weights)
        return output, *tape.gradient(loss, [x, *variables])

    return run


@pytest.mark.covering(1)
@pytest.mark.parametrize(
    "chunk_length, gated", [(1, False), (4, True), (13, True), (20, False)]
)
def test_chunks_change_nothing(gated, chunk_length, execution):
    x = make_inputs()
    weights = np.random.default_rng(0).normal(size=x.shape)
    layers = []
    for chunk in (None, chunk_length):
        layer = make_layer(
            gated=gated, dropout=0.4, chunk_length=chunk, dtype="float64"
        )
        layer.build(x.shape)
        layers.append(layer)
    whole, chunked = layers
    chunked.set_weights(whole.get_weights())
    run_whole = outputs_and_gradients(whole, weights)
    run_chunked = execution(outputs_and_gradients(chunked, weights))
    for _ in range(2):  # two steps, two masks
        for one, other in zip(run_chunked(x), run_whole(x), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_dropout_drops_hidden_units_in_training_alone():
    layer = FeedForward(64, "linear", dropout=0.4, seed=1)
    x = tf.ones((3, LENGTH, 64))
    layer.build(x.shape)
    identity = np.eye(64, dtype="float32")
    layer.intermediate.kernel.assign(identity)
    layer.output_dense.kernel.assign(identity)
    np.testing.assert_array_equal(layer(x), x)
    output = layer(x, training=True).numpy()
    np.testing.assert_allclose(np.unique(output), [0, 1 / 0.6], rtol=1e-6)
    assert 0.35 < np.mean(output == 0) < 0.45
    assert (output != layer(x, training=True).numpy()).any()


@pytest.mark.parametrize("shape", [(31, 13, 17), (31, 17), (31, 3, 5, 17)])
def test_one_draw_of_shared_dropout_counts_for_all_positions(shape):
    layer = FeedForward(17, "linear", dropout=0.4, shared_dropout=True, seed=1)
    x = tf.ones(shape)
    layer.build(x.shape)
    for dense in (layer.intermediate, layer.output_dense):
        dense.kernel.assign(np.eye(17, dtype="float32"))
    dropped = layer(x, training=True).numpy() == 0
    assert abs(dropped.mean() - 0.4) < 0.1
    for axis in range(len(shape)):
        differs = (dropped != dropped.take([0], axis=axis)).any()
        assert differs == (axis in (0, len(shape) - 1))


def test_chunks_share_the_draws_of_shared_dropout():
    x, runs = make_inputs(), []
    for chunk_length in (None, 4):
        layer = make_layer(
            dropout=0.4,
            shared_dropout=True,
            chunk_length=chunk_length,
            kernel_initializer=keras.initializers.RandomNormal(seed=1),
            bias_initializer="ones",
            dtype="float64",
        )
        layer.build(x.shape)
        runs.append(outputs_and_gradients(layer, np.ones(x.shape))(x))
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_regularizers_count_once_with_chunks():
    layer = make_layer(
        chunk_length=4,
        kernel_regularizer=keras.regularizers.L2(0.1),
        bias_regularizer=keras.regularizers.L1(0.2),
        activity_regularizer=keras.regularizers.L2(0.3),
    )
    output = layer(make_inputs("float32"), training=True)
    kernels = layer.intermediate.kernel, layer.output_dense.kernel
    biases = layer.intermediate.bias, layer.output_dense.bias
    expected = 0.1 * sum(np.sum(np.square(k.numpy())) for k in kernels)
    expected += 0.2 * sum(np.sum(np.abs(b.numpy())) for b in biases)
    # Keras 3.13 does not divide it by the number of rows.
    probe = keras.layers.Identity(activity_regularizer=keras.regularizers.L2(1))
    probe(output)
    expected += 0.3 * probe.losses[0]
    np.testing.assert_allclose(sum(layer.losses), expected, rtol=1e-5)


def test_takes_any_rank_without_chunks():
    layer = make_layer()
    x = make_inputs("float32")
    expected = layer(x)
    np.testing.assert_allclose(layer(x[:, 0]), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 3, 5)])
def test_chunks_need_a_sequence(shape):
    with pytest.raises(ValueError, match=r"Received: input_shape=\(2, "):
        make_layer(chunk_length=4)(tf.zeros(shape))


@pytest.mark.parametrize(
    "options, received",
    [
        ({"intermediate_dim": 0}, "intermediate_dim=0"),
        ({"intermediate_dim": 2.5}, "intermediate_dim=2.5"),
        ({"intermediate_dim": True}, "intermediate_dim=True"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"dropout": "much"}, "dropout='much'"),
        ({"chunk_length": 0}, "chunk_length=0"),
        ({"chunk_length": "4"}, "chunk_length='4'"),
    ],
)
def test_refuses_bad_arguments(options, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        FeedForward(**{"intermediate_dim": INNER, **options})


def test_long_sequences_are_chunked_by_themselves(monkeypatch, execution):
    layer, x = make_layer(dtype="float64"), make_inputs()
    layer.build(x.shape)
    run = outputs_and_gradients(layer, np.ones(x.shape))
    whole = execution(run)(x)
    lengths, function = [], layer._positions

    def counting(chunk, *arguments):
        lengths.append(chunk.shape[1])
        return function(chunk, *arguments)

    monkeypatch.setattr(layer, "_positions", counting)
    monkeypatch.setattr(feed_forward, "UNITS_IN_STEP", 4 * BATCH * INNER)
    for one, other in zip(execution(run)(x), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    assert lengths and max(lengths) <= 4
