"""`LSHSelfAttention`: where rotations come from, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LSHSelfAttention
from tests.support.lsh_layers import (
    DIM,
    HEADS,
    KEY_DIM,
    VALUE_DIM,
    equations,
    make_inputs,
    make_layer,
    make_rotations,
)

X = make_inputs(13)
RECEIVED_SHAPE = r"Received: rotations.shape=\("


def make_model(layer):
    inputs = keras.Input((13, DIM))
    return keras.Model(inputs, layer(inputs))


def reload(layer, folder, file_format):
    """The layer of a saved and loaded model."""
    model = make_model(layer)
    if file_format == "keras":
        model.save(folder / "model.keras")
        return keras.saving.load_model(folder / "model.keras").layers[-1]
    model.save_weights(folder / "model.weights.h5")
    fresh = make_layer(seed=None)
    make_model(fresh).load_weights(folder / "model.weights.h5")
    return fresh


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("file_format", ["keras", "weights.h5"])
def test_inference_hashes_always_alike(seed, file_format, tmp_path):
    layer = make_layer(seed=seed)
    expected = layer(X)
    np.testing.assert_array_equal(layer(X), expected)
    layer(X, training=True)
    np.testing.assert_array_equal(layer(X), expected)
    loaded = reload(layer, tmp_path, file_format)
    np.testing.assert_array_equal(loaded(X), expected)
    np.testing.assert_array_equal(loaded.hash(X), layer.hash(X))


def test_inference_hashes_alike_in_every_execution(execution):
    layer = make_layer(num_hashes=1)
    expected = layer(X)
    output = execution(lambda x: layer(x))(tf.constant(X))
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_layers_and_seeds_hash_differently():
    layers = [make_layer(seed=seed) for seed in (3, 4, None, None)]
    for layer in layers:
        layer.build((None, None, DIM))
    seeds = {tuple(layer.rotation_seed.numpy()) for layer in layers}
    assert len(seeds) == 4
    again = make_layer(seed=3)
    again.build((None, None, DIM))
    np.testing.assert_array_equal(again.rotation_seed, layers[0].rotation_seed)


def test_heads_and_rounds_hash_differently():
    layer = make_layer()
    layer.build((None, None, DIM))
    same = np.random.default_rng(0).normal(size=(DIM, 1, KEY_DIM))
    layer.query_key.kernel.assign(np.tile(same, (1, HEADS, 1)).reshape(DIM, -1))
    layer.query_key.bias.assign(np.zeros(HEADS * KEY_DIM))
    buckets = layer.hash(make_inputs(101)).numpy()
    assert buckets.shape == (2, HEADS, 3, 101)
    assert set(np.unique(buckets)) == {0, 1, 2, 3}
    flat = buckets.transpose(1, 2, 0, 3).reshape(HEADS * 3, -1)
    assert len(np.unique(flat, axis=0)) == HEADS * 3


def test_training_draws_new_rotations_each_step(execution):
    layer = make_layer(num_hashes=1)
    layer.build((None, None, DIM))
    layer.rotations = make_rotations(4)  # for inference
    run = execution(lambda x: layer(x, training=True))
    outputs = [run(tf.constant(X)).numpy() for _ in range(3)]
    outputs.append(layer(X).numpy())
    for index, output in enumerate(outputs):
        for other in outputs[:index]:
            assert not np.allclose(output, other)


@pytest.mark.parametrize("training", [False, True])
def test_rotations_of_a_call_go_before_all_others(training):
    layer = make_layer(dtype="float64")
    one, other = make_rotations(4), make_rotations(4, seed=1)
    expected = equations(layer, *_built(layer, one))
    for layer.rotations in (None, other):
        output = layer(X, training=training, rotations=one)
        np.testing.assert_allclose(output, expected, atol=1e-12)
    for rounds in (4, 7):
        more = make_rotations(4, rounds)
        more[:, :, :3] = one
        output = layer(X, training=training, rotations=tf.constant(more))
        np.testing.assert_allclose(output, expected, atol=1e-12)


def _built(layer, rotations):
    layer.build((None, None, DIM))
    return X.astype("float64"), rotations


@pytest.mark.parametrize("file_format", ["keras", "weights.h5"])
def test_injected_rotations_are_used_and_saved(file_format, tmp_path):
    layer = make_layer()
    drawn = layer(X)
    layer.rotations = make_rotations(4)
    expected = layer(X)
    assert not np.allclose(expected, drawn)
    np.testing.assert_array_equal(
        expected, layer(X, rotations=make_rotations(4))
    )
    loaded = reload(layer, tmp_path, file_format)
    np.testing.assert_array_equal(loaded.rotations, layer.rotations)
    np.testing.assert_array_equal(loaded(X), expected)
    layer.rotations = loaded.rotations = None
    np.testing.assert_array_equal(layer(X), drawn)
    np.testing.assert_array_equal(loaded(X), drawn)


@pytest.mark.parametrize("injected", [False, True])
def test_rounds_of_a_built_layer_can_be_set(injected):
    layer = make_layer(num_hashes=4, dtype="float64")
    x, rotations = _built(layer, make_rotations(4, 8))
    if injected:
        layer.rotations = rotations
    hashes = None
    for layer.num_hashes in (8, 4, 2, 1):
        found = layer.hash(x)
        assert found.shape[2] == layer.num_hashes
        if hashes is not None:  # fewer rounds are the first ones
            np.testing.assert_array_equal(found, hashes[:, :, : found.shape[2]])
        hashes = found
        if injected:
            part = rotations[:, :, : layer.num_hashes]
            np.testing.assert_allclose(
                layer(x), equations(layer, x, part), atol=1e-12
            )


@pytest.mark.slow
def test_many_rounds_without_duplicates_come_near_exact_attention():
    layer = make_layer(num_buckets=2, causal=True, discount_duplicates=True)
    x = X[:, :5]
    layer.exact_below = 5
    exact = layer(x).numpy()
    layer.exact_below = 0
    errors = []
    for layer.num_hashes in (1, 96):
        errors.append(abs(layer(x).numpy() - exact).max())
    assert errors[0] > 0.1
    assert errors[1] < 1e-5


def test_number_of_buckets_follows_a_known_length():
    layer = make_layer(num_buckets=None)
    layer.build((None, None, DIM))
    for length, buckets in ((5, 2), (13, 4), (41, 12)):
        hashes = layer.hash(make_inputs(length))
        assert set(np.unique(hashes)) <= set(range(buckets))
    any_length = tf.function(
        lambda x: layer(x),
        input_signature=[tf.TensorSpec((None, None, DIM))],
        autograph=False,
    )
    with pytest.raises(ValueError, match="num_buckets=None, length=None"):
        any_length(X)


@pytest.mark.parametrize(
    "shape",
    [
        (HEADS, KEY_DIM, 3, 3),
        (HEADS, KEY_DIM, 2, 2),
        (HEADS, VALUE_DIM, 3, 2),
        (1, KEY_DIM, 3, 2),
        (KEY_DIM, 3, 2),
        (1, HEADS, KEY_DIM, 3, 2),
    ],
)
def test_refuses_rotations_of_a_wrong_shape(shape):
    layer = make_layer()
    with pytest.raises(ValueError, match=RECEIVED_SHAPE):
        layer.rotations = np.zeros(shape)
    with pytest.raises(ValueError, match=RECEIVED_SHAPE):
        layer(X, rotations=np.zeros(shape))
    assert layer.rotations is None


def test_refuses_more_rounds_than_rotations():
    layer = make_layer()
    layer.rotations = make_rotations(4)
    layer.num_hashes = 4
    with pytest.raises(ValueError, match=RECEIVED_SHAPE):
        layer(X)


@pytest.mark.parametrize(
    "options, received",
    [
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_heads": 2.0}, "num_heads=2.0"),
        ({"key_dim": -1}, "key_dim=-1"),
        ({"value_dim": 0}, "value_dim=0"),
        ({"num_hashes": 0}, "num_hashes=0"),
        ({"num_hashes": True}, "num_hashes=True"),
        ({"num_buckets": 3}, "num_buckets=3"),
        ({"num_buckets": 0}, "num_buckets=0"),
        ({"num_buckets": -2}, "num_buckets=-2"),
        ({"num_buckets": "4"}, "num_buckets='4'"),
        ({"num_buckets": [4, 0]}, "num_buckets=0"),
        ({"num_buckets": [4, 5]}, r"num_buckets=\[4, 5\]"),
        ({"num_buckets": []}, r"num_buckets=\[\]"),
        ({"num_buckets": 4.0}, "num_buckets=4.0"),
        ({"chunk_length": 0}, "chunk_length=0"),
        ({"chunk_length": None}, "chunk_length=None"),
        ({"num_chunks_before": -1}, "num_chunks_before=-1"),
        ({"num_chunks_after": 0.5}, "num_chunks_after=0.5"),
        ({"scope": "chunks"}, "scope='chunks'"),
        ({"scope": ["chunk"]}, r"scope=\['chunk'\]"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.5}, "dropout=-0.5"),
        ({"dropout": None}, "dropout=None"),
        ({"exact_below": -1}, "exact_below=-1"),
        ({"exact_below": 0.5}, "exact_below=0.5"),
        ({"wrap": True}, "wrap=True, scope='bucket'"),
        ({"duplicates": True}, "duplicates=True"),
        ({"duplicates": "once"}, "duplicates='once'"),
        (
            {"discount_duplicates": True, "duplicates": "count"},
            "discount_duplicates=True, duplicates='count'",
        ),
        (
            {"discount_duplicates": True, "duplicates": "importance"},
            "discount_duplicates=True, duplicates='importance'",
        ),
    ],
)
def test_refuses_bad_arguments(options, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        LSHSelfAttention(**{"num_heads": 2, "key_dim": 3, **options})


@pytest.mark.parametrize("name", ["num_hashes", "exact_below"])
def test_refuses_a_bad_value_later_too(name):
    layer = make_layer()
    with pytest.raises(ValueError, match=f"Received: {name}=-1"):
        setattr(layer, name, -1)


@pytest.mark.parametrize("shape", [(2, 7), (7,), (2, 3, 5, 7), (2, 3, None)])
def test_refuses_inputs_of_a_wrong_rank(shape):
    layer = make_layer()
    with pytest.raises(ValueError, match=r"Received: input_shape=\("):
        layer(keras.KerasTensor(shape))
