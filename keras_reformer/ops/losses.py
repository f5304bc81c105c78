"""Cross-entropy over a vocabulary, a chunk of positions at a time.

Logits of a whole sequence are the largest tensor of a language model's step.
Here no more than `LOGITS_IN_STEP` exist at a time, in both passes.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_reformer.ops.chunking import chunk_length_for, map_positions
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.shapes import (
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)

# Logits of a step, in elements: 32 MiB of float32.
LOGITS_IN_STEP = 2**23


def chunked_cross_entropy(
    head: Callable[[tf.Tensor, list], tf.Tensor],
    hidden: tf.Tensor,
    weights: Sequence[tf.Tensor],
    labels: tf.Tensor,
    vocabulary_size: int,
    label_smoothing: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Loss, cross-entropy and accuracy of each position.

    Args:
        head: `(hidden, weights) -> logits` of a chunk of positions.
        hidden: Float tensor of shape `(batch, length, dim)`.
        weights: the head's weights that get gradients.
        labels: Integer tensor of shape `(batch, length)`.
        vocabulary_size: int. Width of the logits; sets the chunk's length.
        label_smoothing: float in `[0, 1)`. Share of the labels' weight that
            is spread over the vocabulary (Szegedy et al. 2016, section 7).

    Returns:
        losses: `(batch, length)`, float32 at least: cross-entropy with the
            smoothed labels.
        nats: `(batch, length)`: `-log p(label)`.
        correct: `(batch, length)`: 1 where the largest logit is the label's.
    """
    dtype = softmax_dtype(hidden.dtype)
    chunk_length = chunk_length_for(hidden, vocabulary_size, LOGITS_IN_STEP)
    length = size(labels, 1)
    spare = ceil_div(length, chunk_length) * chunk_length - length
    padded = pad_axis(tf.cast(labels, tf.int32), 1, 0, spare)

    def positions(chunk, first, weights):
        logits = tf.cast(head(chunk, weights), dtype)
        # A slice with a dynamic start has no static size under XLA.
        sizes = (size(padded, 0), size(chunk, 1))
        targets = tf.slice(padded, (0, first), sizes)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        losses = _smooth(nats, logits, label_smoothing)
        correct = tf.argmax(logits, -1, tf.int32) == targets
        return tf.stack([losses, nats, tf.cast(correct, dtype)], axis=-1)

    results = map_positions(
        positions, hidden, weights, chunk_length, ArraySpec([3], dtype)
    )
    return tuple(tf.unstack(results, axis=-1))


def _smooth(nats, logits, share) -> tf.Tensor:
    """Cross-entropy with the `share` spread evenly over the vocabulary."""
    if not share:
        return nats
    uniform = tf.reduce_logsumexp(logits, -1) - tf.reduce_mean(logits, -1)
    return (1 - share) * nats + share * uniform
