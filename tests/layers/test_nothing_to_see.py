"""Tokens that may attend to nothing: zeros, and finite gradients."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import RelativePositionBias
from tests.support import positioned
from tests.support.positioned import BATCH, HEADS, LENGTH

KINDS = {
    "bucket": ("lsh", {"scope": "bucket", "discount_duplicates": True}),
    "chunk": ("lsh", {"scope": "chunk", "exact_below": 0}),
    "wrap": ("lsh", {"scope": "chunk", "wrap": True, "exact_below": 0}),
    "short": ("lsh", {"exact_below": LENGTH}),
    "local": ("local", {}),
    "exact": ("exact", {}),
    "shared": ("exact", {"share_query_key": True}),
}
DTYPES = ["float32", "bfloat16", "float16"]


def make_layer(kind, dtype, **options):
    kind, own = KINDS[kind]
    return positioned.make_built(kind, dtype=dtype, **own, **options)


def run(layer, **options):
    """Outputs, and gradients of their squares by inputs and weights."""
    x = tf.constant(positioned.make_inputs()[0], layer.compute_dtype)
    values = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, **options)
        loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 2)
    gradients = tape.gradient(loss, [x, *values])
    return outputs, *map(tf.convert_to_tensor, gradients)


def outputs_and_gradients(layer, **options):
    return [np.asarray(found) for found in run(layer, **options)]


def masks():
    """One example of which all is masked, and one with a single token."""
    mask = np.ones((BATCH, LENGTH), bool)
    mask[0] = False
    mask[1] = np.arange(LENGTH) == 7
    return mask


@pytest.mark.parametrize(
    "dtype, training",
    [("float32", False), ("bfloat16", True), ("float16", True)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens(kind, dtype, training):
    layer = make_layer(kind, dtype, causal=training, dropout=0.3)
    options = {"mask": masks(), "training": training}
    outputs, by_inputs, *others = outputs_and_gradients(layer, **options)
    assert outputs.dtype == by_inputs.dtype == dtype
    np.testing.assert_array_equal(outputs[~masks()], 0)
    np.testing.assert_array_equal(by_inputs[~masks()], 0)
    for found in (outputs, by_inputs, *others):
        assert np.isfinite(found.astype("float32")).all()
    if not training:
        # The only token attends to itself.
        assert np.abs(outputs[1, 7].astype("float32")).max() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["bucket", "local", "exact"])
def test_masked_tokens_with_a_bias(kind, dtype):
    bias = RelativePositionBias(HEADS, 8, 11, dtype=dtype)
    layer = make_layer(kind, dtype, position_bias=bias)
    mask = np.zeros((BATCH, LENGTH), bool)
    for found in outputs_and_gradients(layer, mask=mask):
        np.testing.assert_array_equal(found.astype("float32"), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_queries_that_may_see_no_key(dtype, training):
    layer = make_layer("exact", dtype, dropout=0.3)
    blind = np.arange(LENGTH) % 3 == 1
    mask = np.broadcast_to(~blind[:, None], (BATCH, LENGTH, LENGTH))
    found = outputs_and_gradients(layer, attention_mask=mask, training=training)
    np.testing.assert_array_equal(found[0][:, blind], 0)
    for each in found:
        assert np.isfinite(each.astype("float32")).all()
    assert np.abs(found[0][:, ~blind].astype("float32")).min() > 0


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", ["bucket", "exact"])
def test_masked_tokens_in_every_execution(kind, execution):
    layer = make_layer(kind, "float32", causal=True)

    for found in execution(lambda: run(layer, mask=masks()))():
        assert np.isfinite(found).all()
