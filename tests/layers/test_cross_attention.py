"""Cross-attention: as Keras's own, and within a reversible stack."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import CrossAttention, ReversibleBlock
from tests.support import stepwise
from tests.support.decoder_stacks import (
    CONTEXT_MASK,
    CONTEXT_SHAPE,
    gradient_function,
    make_block,
    make_context,
    make_decoder,
)
from tests.support.executions import EXECUTIONS
from tests.support.stacks import (
    DIM,
    SHAPE,
    check_against_plain,
    make_inputs,
    set_weights_apart,
    state_of,
)


def test_equals_keras():
    layer = CrossAttention(2, 3, value_dim=5, query_chunk_length=4)
    x, context = make_inputs(), make_context()
    found = layer(x, context, context_mask=CONTEXT_MASK)
    theirs = keras.layers.MultiHeadAttention(2, 3, value_dim=5, use_bias=False)
    theirs.build(SHAPE, CONTEXT_SHAPE)
    names = {v.path.split("/")[-2]: v for v in layer.trainable_variables}
    for variable in theirs.trainable_variables:
        ours = names[variable.path.split("/")[-2]]
        variable.assign(tf.reshape(ours, variable.shape))
    expected = theirs(x, context, value_mask=CONTEXT_MASK)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_masked_context_has_no_influence_and_no_gradient():
    layer, x = CrossAttention(2, 3), make_inputs()
    context = make_context()
    other = tf.where(CONTEXT_MASK[..., None], context, 9.0)
    expected = layer(x, context, context_mask=CONTEXT_MASK)
    with tf.GradientTape() as tape:
        tape.watch(other)
        found = layer(x, other, context_mask=CONTEXT_MASK)
    np.testing.assert_array_equal(found, expected)
    assert not np.any(np.array(tape.gradient(found, other))[~CONTEXT_MASK])
    nothing = layer(x, context, context_mask=np.zeros_like(CONTEXT_MASK))
    assert not np.any(nothing)


@pytest.mark.parametrize(
    "context", [None, np.ones((2, 7), "f"), np.ones((3, 7, 4), "f")], ids=str
)
def test_refused_contexts(context):
    layer = CrossAttention(2, 3)
    with pytest.raises(ValueError, match="context to attend to.*Received"):
        layer(make_inputs(), context)


# --- Within a reversible stack ---


@pytest.mark.parametrize(
    "name, scan_blocks",
    [
        ("graph", "auto"),
        pytest.param("eager", "auto", marks=pytest.mark.slow),
        pytest.param("graph", False, marks=pytest.mark.slow),
        pytest.param("xla", "auto", marks=pytest.mark.slow),
        pytest.param("xla", False, marks=pytest.mark.slow),
    ],
)
def test_gradients_equal_plain_backpropagation(name, scan_blocks):
    """Dropout is on; the context gets the gradients of all blocks."""
    sequence = make_decoder(scan_blocks=scan_blocks)
    expected = check_against_plain(
        sequence,
        gradient_function(sequence),
        [make_inputs(), make_context()],
        EXECUTIONS[name],
    )
    assert all(np.any(one) for one in expected)


@pytest.mark.slow
def test_equal_finite_differences():
    sequence = make_decoder("float64", dropout=0.0)
    x, context = make_inputs("float64"), make_context("float64")
    run = tf.function(gradient_function(sequence), autograph=False)
    _, _, gradient, *_ = run(x, context)
    direction = np.random.default_rng(1).normal(size=context.shape)
    step = 1e-6 * direction
    numeric = (run(x, context + step)[0] - run(x, context - step)[0]) / 2e-6
    analytic = tf.reduce_sum(gradient * direction)
    np.testing.assert_allclose(analytic, numeric, rtol=1e-6)


def test_inverse():
    block = make_block(dropout=0.0)
    inputs = make_inputs(), make_inputs(seed=1)
    more = {"context": make_context(), "context_mask": CONTEXT_MASK}
    outputs = block(inputs, **more)
    set_weights_apart(block)
    outputs = block(inputs, **more)
    for found, one in zip(block.inverse(outputs, **more), inputs, strict=True):
        np.testing.assert_allclose(found, one, atol=1e-5)


def test_steps_are_those_of_a_full_pass():
    sequence = make_decoder()
    x = np.asarray(make_inputs())
    more = {"context": make_context(), "context_mask": CONTEXT_MASK}
    expected = sequence(x, **more)

    class Decoder:
        decode = sequence.decode

        def prefill(self, *arguments):
            return sequence.prefill(*arguments, **more)

    found = stepwise.decode(Decoder(), x, np.array([3, 0], "int32"))
    assert stepwise.gap(found, expected) < 1e-5


def test_a_context_is_asked_for():
    sequence = make_decoder(num_blocks=1)
    with pytest.raises(ValueError, match="Expected `context`.*context=None"):
        sequence(make_inputs())
    with pytest.raises(ValueError, match="cross_attention"):
        ReversibleBlock(keras.layers.Dense(DIM), keras.layers.Dense(DIM), "no")


def test_packed_documents_have_no_context_of_their_own():
    sequence = make_decoder(num_blocks=1)
    segment_ids = np.zeros(SHAPE[:2], "int32")
    with pytest.raises(ValueError, match="Expected no segment_ids"):
        sequence(make_inputs(), context=make_context(), segment_ids=segment_ids)
    pair, block = (make_inputs(),) * 2, sequence.blocks[0]
    for call in (block, block.inverse):
        with pytest.raises(ValueError, match="Expected no segment_ids"):
            call(pair, context=make_context(), segment_ids=segment_ids)
        with pytest.raises(ValueError, match="Expected `context`"):
            call(pair)


def test_a_functional_model_is_saved(tmp_path):
    inputs = keras.Input(SHAPE[1:]), keras.Input(CONTEXT_SHAPE[1:])
    sequence = make_decoder(num_blocks=1)
    outputs = sequence(inputs[0], context=inputs[1])
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    data = [make_inputs(), make_context()]
    np.testing.assert_array_equal(model(data), loaded(data))
    assert len(state_of(loaded)) == len(state_of(model))
