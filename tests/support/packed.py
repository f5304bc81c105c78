"""Random packings of documents into rows, and what each document is alone."""

import numpy as np
import tensorflow as tf


def make_segment_ids(seed, rows=2, length=29, documents=5):
    """Segment ids of up to so many documents of random lengths a row."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((rows, length), "int32")
    for row in ids:
        count = rng.integers(1, documents + 1)
        borders = rng.choice(np.arange(1, length), count - 1, replace=False)
        row[borders] = 1
    return np.cumsum(ids, axis=1, dtype="int32")


def make_mask(seed, segment_ids):
    """A mask that leaves at least the first token of each document."""
    mask = np.random.default_rng(seed).random(segment_ids.shape) < 0.8
    for row, place in documents(segment_ids):
        mask[row, place.start] = True
    return mask


def documents(segment_ids):
    """Row and slice of each document."""
    for row, ids in enumerate(np.asarray(segment_ids)):
        for number in np.unique(ids):
            (where,) = np.nonzero(ids == number)
            yield row, slice(where[0], where[-1] + 1)


def call_and_gradients(layer, x, d_y, **options):
    """Outputs, and gradients with respect to inputs and weights."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **options)
        total = tf.reduce_sum(y * tf.cast(d_y, y.dtype))
    variables = [v.value for v in layer.trainable_variables]
    gradients = tape.gradient(
        total, [x, *variables], unconnected_gradients="zero"
    )
    return y, gradients


def separately(layer, x, d_y, segment_ids, mask=None):
    """`call_and_gradients` of each document in a row of its own."""
    outputs = np.zeros(d_y.shape)
    d_x, totals = np.zeros(x.shape), None
    for row, place in documents(segment_ids):
        options = {} if mask is None else {"mask": mask[row : row + 1, place]}
        part = slice(row, row + 1), place
        y, (d_part, *d_weights) = call_and_gradients(
            layer, x[part], d_y[part], **options
        )
        outputs[part], d_x[part] = y, d_part
        d_weights = [np.asarray(each) for each in d_weights]
        totals = totals or [0.0] * len(d_weights)
        totals = [a + b for a, b in zip(totals, d_weights, strict=True)]
    return outputs, [d_x, *totals]
