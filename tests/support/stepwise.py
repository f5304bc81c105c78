"""Decoding from caches, step by step, and what it is compared with."""

import numpy as np
import tensorflow as tf

# Prompts of four rows, of which one is empty.
LENGTHS = np.array([9, 0, 17, 4], "int32")


def graph(function):
    """A graph of a function, one for many shapes."""
    return tf.function(function, autograph=False, reduce_retracing=True)


def decode(layer, inputs, lengths, capacity=None):
    """What a layer gives when it sees inputs one by one after prompts.

    Args:
        layer: what has `prefill` and `decode`.
        inputs: `(batch, length, ...)`.
        lengths: int `(batch,)`: of the prompts.
        capacity: of the cache. Defaults to `length`.

    Returns:
        Array `(batch, length, ...)`: at a prompt's positions the outputs of
        its pass, then those of the steps. Rows with longer prompts go on
        from them; their last positions are filled first and stay.
    """
    inputs, lengths = np.asarray(inputs), np.asarray(lengths)
    batch, length = inputs.shape[:2]
    width = max(1, int(lengths.max()))
    mask = np.arange(width) < lengths[:, None]
    outputs, cache = layer.prefill(
        tf.constant(inputs[:, :width]), mask, capacity or length
    )
    outputs = np.asarray(outputs, "float64")
    found = np.zeros((batch, length, *outputs.shape[2:]))
    found[:, :width][mask] = outputs[mask]
    step, rows = graph(layer.decode), np.arange(batch)
    for number in range(length - int(lengths.min())):
        at = lengths + number
        there = at < length
        at = np.minimum(at, length - 1).astype("int32")
        outputs, cache = step(inputs[rows, at][:, None], cache, at)
        found[rows[there], at[there]] = np.asarray(outputs, "float64")[there, 0]
    return found


def last_of(layer):
    """A function of arrays of any length: the last position's outputs."""

    @tf.function(autograph=False, reduce_retracing=True)
    def call(inputs):
        return layer(inputs, training=False)[:, -1]

    def last(inputs):
        inputs = tf.constant(inputs)
        shape = [inputs.shape[0], None, *inputs.shape[2:]]
        # One trace, and none for the first length.
        run = call.get_concrete_function(tf.TensorSpec(shape, inputs.dtype))
        return np.asarray(run(inputs), "float64")

    return last


def growing(layer, inputs):
    """The last output of a full pass over each prefix.

    Args:
        layer: Keras layer.
        inputs: `(batch, length, ...)`.

    Returns:
        Array `(batch, length, ...)`.
    """
    last = last_of(layer)
    lengths = range(1, inputs.shape[1] + 1)
    return np.stack([last(inputs[:, :length]) for length in lengths], axis=1)


def gap(found, expected):
    """The largest difference, in shares of the largest magnitude."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()
