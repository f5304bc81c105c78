"""Losses of parts add up to the batch's, in every reduction."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.models.losses import of_all_parts
from keras_reformer.ops.replicas import Part, tracing_part

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, (5, 4))
LOGITS = RNG.normal(size=(5, 4, 3)).astype("float32")
WEIGHTS = RNG.uniform(size=(5, 4)).astype("float32")
MASK = RNG.uniform(size=(5, 4)) < 0.5
# The last has no valid position.
MASK[4] = False
PARTS = [slice(0, 2), slice(2, 4), slice(4, 5)]


def predictions(rows, masked):
    x = tf.constant(LOGITS[rows])
    mask = tf.constant(MASK[rows])
    return keras.layers.Masking()(x) if not masked else masked_by(x, mask)


def masked_by(x, mask):
    class Attach(keras.layers.Layer):
        def compute_mask(self, inputs, mask_of_inputs):
            return mask

        def call(self, inputs):
            return inputs + 0.0

    layer = Attach()
    layer.supports_masking = True
    return layer(x)


def summed(loss, weighted, masked):
    """The losses of the parts, which ask for sums first."""
    asked = [[] for _ in PARTS]

    def run(part, rows, answer):
        with tracing_part(
            Part((rows.stop - rows.start) / 5, answer, tf.constant(0))
        ):
            weights = WEIGHTS[rows] if weighted else None
            share = loss(LABELS[rows], predictions(rows, masked), weights)
        return share * (rows.stop - rows.start) / 5

    for part, rows in zip(asked, PARTS, strict=True):
        run(part, rows, lambda x, part=part: part.append(x) or x)
    totals = [sum(each) for each in zip(*asked, strict=True)]
    total = 0.0
    for rows in PARTS:
        given = iter(totals)
        total += run(None, rows, lambda x, given=given: next(given))
    return total


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"]
)
def test_parts_add_up(reduction, weighted, masked):
    plain = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    )
    weights = WEIGHTS if weighted else None
    everything = predictions(slice(0, 5), masked)
    expected = plain(LABELS, everything, weights)
    loss = of_all_parts(plain)
    np.testing.assert_allclose(summed(loss, weighted, masked), expected, 1e-6)
    # In one piece it is the loss itself.
    assert loss(LABELS, everything, weights) == expected


def test_names_and_functions():
    assert of_all_parts(None) is None
    assert of_all_parts("mse").name == "mse"

    def distance(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

    loss = of_all_parts(distance)
    assert float(loss(np.ones((2, 1)), np.zeros((2, 1)))) == 1.0


def test_other_reductions_are_refused():
    loss = keras.losses.MeanSquaredError(reduction=None)
    with pytest.raises(ValueError, match="Received: reduction=None"):
        of_all_parts(loss)
