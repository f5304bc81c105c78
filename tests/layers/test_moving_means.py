"""Replicas move a center as one device does, whatever tokens each has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    LSHSelfAttention,
    ReversibleBlock,
    ReversibleSequence,
)
from keras_reformer.layers.moving_means import assign_mean, collecting_weights

ROWS = np.random.default_rng(0).normal(size=(2, 12, 4)).astype("float32")
# The second replica has few tokens; in the last step nobody has any.
MASKS = [np.arange(12) < [[12], [3]], np.arange(12) < [[12], [0]]]
MASKS.append(np.zeros((2, 12), bool))


def make_attention():
    return LSHSelfAttention(
        2, 3, num_buckets=4, chunk_length=4, center_hashes=True, seed=0
    )


def make_sequence():
    block = ReversibleBlock(make_attention(), FeedForward(4))
    return ReversibleSequence([block])


def make_scanned():
    blocks = [ReversibleBlock(make_attention(), FeedForward(4)) for _ in "ab"]
    return ReversibleSequence(blocks)


def centers(make, strategy=None, graph=False):
    """The centers after some steps, each on one replica's row."""
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(0)
        layer = make()
        layer.build((None, *ROWS.shape[1:]))

    def train(x, mask):
        layer(x, mask=mask, training=True)

    def step(x, mask):
        if strategy is None:
            return train(x, mask)
        arguments = [
            strategy.experimental_distribute_values_from_function(
                lambda context, values=values: tf.constant(
                    values[context.replica_id_in_sync_group][None]
                )
            )
            for values in (x, mask)
        ]
        return strategy.run(run, arguments)

    run = tf.function(train) if graph else train
    found = []
    for mask in MASKS:
        step(ROWS, mask)
        found += [
            np.asarray(x)
            for x in layer.non_trainable_variables
            if x.name == "hash_center"
        ]
    return found


CASES = {
    "a layer": (make_attention, False),
    "a reversible block": (make_sequence, False),
    "a scan": (make_scanned, True),
}


@pytest.mark.parametrize(
    "case",
    [
        case
        if case == "a reversible block"
        else pytest.param(case, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_replicas_move_a_center_as_one_device_does(case, two_replicas):
    make, graph = CASES[case]
    expected = centers(make)
    found = centers(make, two_replicas, graph)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_one_replica_assigns_its_value_as_it_is():
    variable = keras.Variable([0.0, 3.0])
    with collecting_weights() as weights:
        assign_mean(variable, tf.constant([1 / 3, 0.1]), tf.constant(0.7))
    np.testing.assert_array_equal(variable, np.float32([1 / 3, 0.1]))
    assert not weights
