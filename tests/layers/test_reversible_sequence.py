import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    ReversibleSequence,
)
from tests.support.layer_checks import check_layer
from tests.support.stacks import (
    BATCH,
    DIM,
    LENGTH,
    SHAPE,
    Scale,
    make_inputs,
    make_sequence,
    register,
    simple,
)


@register
class MaskedMean(keras.layers.Layer):
    """Gives each token the mean of the valid ones; takes a mask."""

    supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return keras.ops.mean(inputs, axis=1, keepdims=True) + 0 * inputs
        valid = keras.ops.cast(mask, inputs.dtype)[..., None]
        total = keras.ops.sum(inputs * valid, axis=1, keepdims=True)
        count = keras.ops.sum(valid, axis=1, keepdims=True)
        return total / count + 0 * inputs


def test_layer_is_at_home_in_keras():
    mask = np.arange(LENGTH) < np.array([[LENGTH], [9]])
    check_layer(
        lambda dtype=None: make_sequence(dtype, num_blocks=1),
        SHAPE,
        masks=[mask],
        mixed_output_dtype="float32",
    )


@pytest.mark.parametrize(
    "merge, recompute",
    [
        pytest.param("mean", False, marks=pytest.mark.slow),
        (None, False),
        (None, True),
    ],
)
def test_other_merges_are_at_home_too(merge, recompute):
    check_layer(
        lambda dtype=None: simple(
            Scale(dtype=dtype),
            Scale(dtype=dtype),
            merge=merge,
            recompute=recompute,
            dtype=dtype,
        ),
        (SHAPE, SHAPE),
        mixed_output_dtype="float32",
    )


@pytest.mark.parametrize("recompute", [False, True])
def test_equals_its_blocks(recompute):
    sequence = make_sequence("float64", merge=None, recompute=recompute)
    x = make_inputs("float64")
    outputs = sequence(x)
    expected = (x, x)
    for block in sequence.blocks:
        expected = block(expected)
    for one, other in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    for block in reversed(sequence.blocks):
        outputs = block.inverse(outputs)
    for one in outputs:
        np.testing.assert_allclose(one, x, atol=1e-12)


def test_merges_streams():
    sequence = simple(Scale(), Scale(), merge=None)
    pair = make_inputs(), make_inputs(seed=1)
    y1, y2 = sequence(pair)
    sequence.merge = "concat"
    np.testing.assert_array_equal(sequence(pair), tf.concat([y1, y2], -1))
    sequence.merge = "mean"
    np.testing.assert_allclose(sequence(pair), (y1 + y2) / 2, rtol=1e-6)


def test_one_tensor_goes_into_both_streams():
    sequence = make_sequence()
    x = make_inputs()
    np.testing.assert_array_equal(sequence(x), sequence((x, x)))
    np.testing.assert_array_equal(sequence(x), sequence([x, x]))


@pytest.mark.covering(1)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("pair", [False, True])
def test_mask_goes_to_branches_that_take_one(recompute, pair, execution):
    sequence = simple(Scale(), MaskedMean(), merge="mean", recompute=recompute)
    x = make_inputs()
    sequence.build(SHAPE)
    mask = tf.constant(np.arange(LENGTH) < np.array([[LENGTH], [9]]))

    def run(x, mask):
        inputs, masks = ((x, x), (mask, mask)) if pair else (x, mask)
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = sequence(inputs, mask=masks)
            first = output[:, 0]
        return output, tape.gradient(first, x)

    output, gradient = execution(run)(x, mask)
    y1 = x + tf.tanh(x * sequence.blocks[0].attention.scale)
    y2 = x + MaskedMean()(y1, mask=mask)
    np.testing.assert_allclose(output, (y1 + y2) / 2, atol=1e-6)
    assert (gradient.numpy()[~mask.numpy()] == 0).all()
    assert (gradient.numpy()[mask.numpy()] != 0).any(axis=-1).all()


@pytest.mark.parametrize("merge", ["mean", None])
def test_keras_hands_masks_on(merge):
    ids = keras.Input((LENGTH,), dtype="int32")
    embedded = keras.layers.Embedding(11, DIM, mask_zero=True)(ids)
    sequence = simple(keras.layers.Identity(), MaskedMean(), merge=merge)
    outputs = sequence(embedded)
    again = simple(keras.layers.Identity(), MaskedMean(), merge=merge)(outputs)
    model = keras.Model(ids, [embedded, outputs, again])
    data = np.random.default_rng(0).integers(1, 11, (BATCH, LENGTH))
    data[1, 9:] = 0
    x, found, found_again = model.predict(data, verbose=0)

    def expected(x1, x2):
        y1 = x1 + x2
        y2 = x2 + MaskedMean()(y1, mask=data > 0).numpy()
        return ((y1 + y2) / 2,) * 2 if merge else (y1, y2)

    for result in (found, found_again):
        x = expected(*x) if isinstance(x, tuple) else expected(x, x)
        for one, other in zip([result] if merge else result, x, strict=False):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_streams_stay_float32(policy):
    sequence = make_sequence(policy)
    assert sequence.compute_dtype == "float32"
    assert sequence(make_inputs()).dtype == "float32"
    attention = sequence.blocks[0].attention.layer
    assert attention.compute_dtype == policy.removeprefix("mixed_")
    keras.config.set_dtype_policy(policy)
    assert simple(Scale(), Scale())(make_inputs()).dtype == "float32"


def test_branches_may_build_what_they_hold_when_called():
    @register
    class Unbuilt(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(DIM)

        def call(self, inputs):
            return self.dense(inputs)

    sequence = simple(Unbuilt(), FeedForward(7), Scale(), Unbuilt())
    x = make_inputs()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(sequence(x))
    gradients = tape.gradient(
        loss, [v.value for v in sequence.trainable_variables]
    )
    assert len(gradients) == 2 + 4 + 1 + 2
    assert all(np.any(gradient) for gradient in gradients)


@pytest.mark.parametrize(
    "blocks", [[], [FeedForward], [keras.layers.Identity()], None, 3]
)
def test_refuses_what_is_no_block(blocks):
    with pytest.raises(ValueError, match="Received: blocks="):
        ReversibleSequence(blocks)


@pytest.mark.parametrize("merge", ["sum", True, 0])
def test_refuses_an_unknown_merge(merge):
    with pytest.raises(ValueError, match="Received: merge="):
        simple(Scale(), Scale(), merge=merge)


@pytest.mark.parametrize(
    "shapes", [[(DIM,)], [SHAPE, (*SHAPE[:2], 3)], [SHAPE] * 3, [SHAPE]]
)
def test_refuses_what_is_no_stream(shapes):
    inputs = [tf.zeros(shape) for shape in shapes]
    inputs = inputs[0] if shapes == [(DIM,)] else inputs
    with pytest.raises(ValueError, match="Received: input_shape="):
        make_sequence()(inputs)
