import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)
from tests.support.layer_checks import check_layer

SHAPE = (2, 13, 5)
PAIR = (SHAPE, SHAPE)


def make_block(dtype=None, attention=LocalSelfAttention, dropout=0.0):
    return ReversibleBlock(
        PreNormalization(
            attention(2, 3, chunk_length=4, seed=1, dtype=dtype),
            dropout=dropout,
            seed=2,
            dtype=dtype,
        ),
        PreNormalization(
            FeedForward(7, dropout=dropout, seed=3, dtype=dtype), dtype=dtype
        ),
        dtype=dtype,
    )


def make_pair(dtype="float32"):
    seeds = ([1, 2], [3, 4])
    return tuple(
        tf.random.stateless_normal(SHAPE, seed, dtype=dtype) for seed in seeds
    )


@pytest.mark.slow
def test_layer_is_at_home_in_keras():
    mask = np.random.default_rng(0).random((2, *SHAPE[:2])) < 0.7

    def make_layer(dtype=None):
        branches = [
            PreNormalization(
                FeedForward(7, dtype=dtype), dropout=0.1, dtype=dtype
            )
            for _ in range(2)
        ]
        return ReversibleBlock(*branches, dtype=dtype)

    check_layer(
        make_layer,
        PAIR,
        masks=[tuple(mask)],
        mixed_output_dtype="float32",
    )


def test_equals_the_equations():
    block = make_block("float64")
    x1, x2 = make_pair("float64")
    y1, y2 = block((x1, x2))
    np.testing.assert_array_equal(y1, x1 + block.attention(x2))
    np.testing.assert_array_equal(y2, x2 + block.feed_forward(y1))


@pytest.mark.parametrize("attention", [LocalSelfAttention, LSHSelfAttention])
@pytest.mark.parametrize(
    "dtype, error", [("float32", 1e-5), ("float64", 1e-12)]
)
def test_inverse_undoes_call(attention, dtype, error):
    block = make_block(dtype, attention, dropout=0.3)
    inputs = make_pair(dtype)
    mask = np.arange(13) < np.array([[13], [9]])
    outputs = block(inputs, mask=mask)
    assert not np.allclose(outputs[0], inputs[0])
    for one, other in zip(
        block.inverse(outputs, mask=mask), inputs, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=error)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_streams_stay_float32(policy):
    block = make_block(policy)
    x1, x2 = make_pair()
    y1, _ = block((x1, x2))
    branch = block.attention(x2)
    assert branch.dtype == keras.dtype_policies.get(policy).compute_dtype
    np.testing.assert_array_equal(y1, x1 + tf.cast(branch, "float32"))


def test_mask_and_training_go_to_branches_that_take_them():
    seen = []

    class TakesBoth(keras.layers.Layer):
        supports_masking = True

        def call(self, inputs, mask=None, training=None):
            seen.append((mask, training))
            return inputs

    class TakesNone(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    mask = tf.constant(np.arange(13) < np.array([[13], [9]]))
    block = ReversibleBlock(TakesBoth(), TakesNone())
    block(make_pair(), mask=mask, training=True)
    found, training = seen[-1]
    np.testing.assert_array_equal(found, mask)
    assert training is True


def test_gradients_equal_those_of_a_sequence():
    block = make_block("float64", LSHSelfAttention)
    sequence = ReversibleSequence([block], merge=None, dtype="float64")
    inputs = make_pair("float64")
    results = []
    for layer in (block, sequence):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y1, y2 = layer(inputs)
            loss = tf.reduce_sum(y1 * tf.sin(y2))
        sources = [*inputs, *(v.value for v in block.trainable_variables)]
        results.append([loss, *tape.gradient(loss, sources)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("branch", [None, "gelu", FeedForward])
def test_refuses_what_is_no_layer(branch):
    with pytest.raises(ValueError, match="Received: attention="):
        ReversibleBlock(branch, FeedForward(3))
    with pytest.raises(ValueError, match="Received: feed_forward="):
        ReversibleBlock(FeedForward(3), branch)


def test_refuses_a_branch_that_changes_the_shape():
    block = ReversibleBlock(keras.layers.Dense(4), FeedForward(3))
    with pytest.raises(ValueError, match=r"Received: \(2, 13, 4\) from"):
        block(make_pair())


@pytest.mark.parametrize(
    "shapes",
    [
        [SHAPE],
        [SHAPE] * 3,
        [SHAPE, (2, 13, 3)],
        [SHAPE, (2, 11, 5)],
        [(5,), (5,)],
        SHAPE,
    ],
)
def test_refuses_what_is_no_pair(shapes):
    is_list = isinstance(shapes, list)
    inputs = (
        [tf.zeros(shape) for shape in shapes] if is_list else tf.zeros(shapes)
    )
    with pytest.raises(ValueError, match="Received: input_shape="):
        make_block()(inputs)
