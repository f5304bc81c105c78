import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer import LSHSelfAttention, ReformerBackbone
from keras_reformer.layers import ReversibleBlock, ReversibleSequence
from tests.support import reference, stepwise, tiny

HEADS, KEY_DIM, LENGTH, DIM = 2, 6, 40, 8
MASK = np.arange(LENGTH) < np.array([[LENGTH], [13]])


def make_inputs(seed=0, common=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, LENGTH, DIM))
    return (x + common * rng.normal(size=DIM)).astype("float32")


def make_layer(center=None, **options):
    options = {
        "num_buckets": 8,
        "chunk_length": 4,
        "num_hashes": 3,
        "center_hashes": True,
        "causal": True,
        "seed": 0,
        **options,
    }
    layer = LSHSelfAttention(HEADS, KEY_DIM, **options)
    layer.build((None, None, DIM))
    if center is not None:
        layer.hash_center.assign(center)
    return layer


def make_center(seed=5):
    return np.random.default_rng(seed).normal(size=(HEADS, KEY_DIM)) / 4


def query_keys(layer, x):
    flat = x.astype("float64") @ np.asarray(layer.query_key.kernel, "float64")
    return flat.reshape(2, -1, HEADS, KEY_DIM).transpose(0, 2, 1, 3)


def least_squares(vectors):
    """For each head, the c of the least sum of |v - |v| c|^2."""
    lengths = np.linalg.norm(vectors, axis=-1)
    return np.stack(
        [
            np.linalg.lstsq(lengths[:, [head]], vectors[:, head])[0][0]
            for head in range(HEADS)
        ]
    )


def directions(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_hashes_are_those_of_directions_less_the_center():
    center = make_center()
    layer, x = make_layer(center), make_inputs()
    seen = directions(query_keys(layer, x)) - center[:, None]
    rotations = np.asarray(layer.decode_constants())
    expected = reference.hash_vectors(seen, rotations, (8,))
    np.testing.assert_array_equal(layer.hash(x), expected)
    without = make_layer()
    assert (np.asarray(without.hash(x)) != expected).any()


def test_scores_are_of_the_vectors_as_they_are():
    layer, x = make_layer(make_center()), make_inputs()
    attended = reference.lsh_attention(
        query_keys(layer, x),
        (x @ np.asarray(layer.value.kernel))
        .reshape(2, -1, HEADS, KEY_DIM)
        .transpose(0, 2, 1, 3),
        np.asarray(layer.hash(x)),
        chunk_length=4,
        causal=True,
    )
    merged = attended.transpose(0, 2, 1, 3).reshape(2, LENGTH, -1)
    expected = merged @ np.asarray(layer.attention_output.kernel)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "mask",
    [pytest.param(None, marks=pytest.mark.slow), MASK],
    ids=["all valid", "masked"],
)
def test_training_moves_the_center_towards_the_common_direction(
    mask, execution
):
    center = make_center()
    layer, x = make_layer(center), make_inputs()
    execution(lambda x: layer(x, mask=mask, training=True))(x)
    valid = np.ones((2, LENGTH), bool) if mask is None else mask
    vectors = query_keys(layer, x).transpose(0, 2, 1, 3)[valid]
    expected = 0.95 * center + 0.05 * least_squares(vectors)
    np.testing.assert_allclose(layer.hash_center, expected, atol=1e-6)


def test_training_hashes_with_the_center_from_before():
    """The same function as inference of then, not one of its own batch."""
    layer, x = make_layer(make_center()), make_inputs()
    rotations = layer.decode_constants()
    expected = layer(x, rotations=rotations)
    found = layer(x, rotations=rotations, training=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mask", [np.zeros((2, LENGTH), bool)])
def test_nothing_valid_moves_nothing(mask):
    center = make_center().astype("float32")
    layer = make_layer(center)
    layer(make_inputs(), mask=mask, training=True)
    np.testing.assert_array_equal(layer.hash_center, center)


@pytest.mark.parametrize("training", [False, True])
def test_inference_and_frozen_layers_move_nothing(training):
    layer = make_layer(make_center())
    layer.trainable = not training
    before = np.asarray(layer.hash_center)
    layer(make_inputs(), training=training)
    np.testing.assert_array_equal(layer.hash_center, before)


def test_a_common_component_no_longer_crowds_a_bucket():
    largest = {}
    x = make_inputs(common=4.0)
    for center_hashes in (False, True):
        layer = make_layer(center_hashes=center_hashes)
        move = tf.function(lambda layer=layer: layer(x, training=True))
        for _ in range(60 if center_hashes else 0):
            move()
        counts = [
            np.bincount(row, minlength=8).max()
            for row in np.reshape(layer.hash(x), (-1, LENGTH))
        ]
        largest[center_hashes] = np.mean(counts) / LENGTH
    assert largest[False] > 0.7
    assert largest[True] < 0.4


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_decoding(scope):
    layer = make_layer(make_center(), scope=scope, exact_below=0)
    x = make_inputs()
    lengths = np.array([17, 17])
    found = stepwise.decode(layer, x, lengths)
    if scope == "bucket":
        np.testing.assert_allclose(found, layer(x), atol=1e-5)
    else:
        expected = stepwise.growing(layer, x)
        np.testing.assert_allclose(found[:, 17:], expected[:, 17:], atol=1e-5)


def test_half_precision_keeps_the_center_whole():
    layer = make_layer(make_center(), dtype="mixed_bfloat16")
    assert layer.hash_center.dtype == "float32"
    before = np.asarray(layer.hash_center)
    layer(make_inputs(), training=True)
    assert (np.asarray(layer.hash_center) != before).all()


def test_no_gradient_goes_through_the_center():
    layer, x = make_layer(make_center()), tf.constant(make_inputs())
    center = layer.hash_center.value
    rotations, gradients = layer.decode_constants(), []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch((x, center))
            y = layer(x, rotations=rotations, training=training)
        d_x, d_center = tape.gradient(y, (x, center))
        assert d_center is None
        gradients.append(d_x)
        layer.hash_center.assign(make_center())
    np.testing.assert_allclose(*gradients, atol=1e-6)


def make_stack(recompute, count):
    # Equal blocks, so that a graph runs them as a loop.
    blocks = [
        ReversibleBlock(
            LSHSelfAttention(
                HEADS,
                KEY_DIM,
                num_buckets=4,
                chunk_length=4,
                center_hashes=True,
                seed=index,
            ),
            keras.layers.Dense(DIM, kernel_initializer="zeros"),
        )
        for index in range(count)
    ]
    return ReversibleSequence(blocks, recompute=recompute)


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_recomputing_moves_it_once(count):
    centers = []
    for recompute in (True, False):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((LENGTH, DIM))
        stack = make_stack(recompute, count)
        model = keras.Model(inputs, stack(inputs))
        model.compile("sgd", "mse")
        x = make_inputs()
        model.fit(x, np.concatenate([x, x], -1), epochs=2, verbose=0)
        centers.append(
            [np.asarray(b.attention.hash_center) for b in stack.blocks]
        )
    np.testing.assert_allclose(*centers, rtol=1e-4, atol=1e-6)
    assert np.abs(centers).min(axis=(0, 2, 3)).all()


# --- Models ---


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, True),
        ({"center_hashes": False}, False),
        ({"scope": "chunk"}, False),
        ({"scope": "chunk", "center_hashes": True}, True),
    ],
    ids=str,
)
def test_models_of_bucket_scope_center(options, expected):
    backbone = tiny.make_backbone(**options)
    layer = backbone.lsh_layers()[1]
    assert layer.center_hashes == expected
    assert (layer.hash_center is not None) == expected
    copy = ReformerBackbone.from_config(backbone.get_config())
    assert copy.lsh_layers()[1].center_hashes == expected


def test_older_configs_do_not_center():
    config = tiny.make_backbone().get_config()
    del config["center_hashes"]
    copy = ReformerBackbone.from_config(config)
    assert copy.lsh_layers()[1].hash_center is None


def test_files_keep_the_center(tmp_path):
    model = keras_reformer.ReformerCausalLM(backbone=tiny.make_backbone())
    ids = np.random.default_rng(0).integers(0, 11, (4, 60))
    model.compile("adam", run_eagerly=True)
    model.fit(ids, verbose=0)
    center = np.asarray(model.backbone.lsh_layers()[1].hash_center)
    assert np.abs(center).max() > 1e-3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = loaded.backbone.lsh_layers()[1].hash_center
    np.testing.assert_array_equal(found, center)
    np.testing.assert_allclose(loaded(ids), model(ids), atol=1e-6)


def test_the_published_model_does_not_center():
    model = keras_reformer.ReformerCausalLM(
        backbone=tiny.make_backbone(
            scope="chunk", wrap=True, center_hashes=True
        )
    )
    with pytest.raises(ValueError, match="center_hashes=True"):
        keras_reformer.convert.to_huggingface(model)


def test_center_hashes_is_checked():
    with pytest.raises(ValueError, match="Received: center_hashes=2"):
        LSHSelfAttention(2, 3, center_hashes=2)


def test_importance_knows_no_center():
    with pytest.raises(ValueError, match="duplicates='importance'"):
        LSHSelfAttention(2, 3, center_hashes=True, duplicates="importance")
    layer = tiny.make_backbone(duplicates="importance").lsh_layers()[1]
    assert not layer.center_hashes
