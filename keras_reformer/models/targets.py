"""Labels and weights of a language model, one per token."""

import numbers

import keras
import numpy as np

from keras_reformer.models.inputs import tokens_of
from keras_reformer.ops.vocabulary import known_labels


def targets(inputs, labels, weights, vocabulary_size, one_hot=False):
    """Labels and weights of all tokens.

    Args:
        inputs: what `inputs.complete` returns.
        labels: Tensor of shape `(batch, length)` or `(batch, length, 1)`, or
            None for the inputs shifted by one.
        weights: Tensor of shape `(batch, length)`, `(batch, length, 1)`,
            `(batch, 1)` or `(batch,)`, or None.
        vocabulary_size: int.
        one_hot: bool. Whether labels `(batch, length, vocabulary_size)` are
            returned unchanged. Defaults to `False`.

    Returns:
        labels: `(batch, length)`, all in the vocabulary.
        weights: float32, `(batch, length)`. Zero for masked tokens, for
            negative labels, and for the last token of shifted inputs and of
            each document in them.

    Raises:
        ValueError: if shapes do not fit.
    """
    tokens, mask = tokens_of(inputs), inputs["padding_mask"]
    valid = keras.ops.ones(keras.ops.shape(tokens)[:2], "float32")
    if mask is not None:
        valid *= keras.ops.cast(mask, "float32")
    if labels is None:
        labels = _shifted(_ids_to_predict(inputs))
        valid *= _shifted(valid, last=0.0)
        if "segment_ids" in inputs:
            valid *= _same_document(inputs["segment_ids"])
    if weights is not None:
        valid *= _weights_per_token(weights, tokens)
    labels = keras.ops.convert_to_tensor(labels)
    if one_hot and len(labels.shape) == 3 and labels.shape[2] != 1:
        return labels, valid
    labels = _labels_per_token(labels, tokens)
    return known_labels(labels, valid, vocabulary_size)


def _ids_to_predict(inputs):
    if "token_ids" not in inputs:
        raise ValueError(
            "Embeddings have no next token to predict. Expected labels: "
            "`fit(x, y)`. Received: inputs of token_embeddings, labels=None"
        )
    return inputs["token_ids"]


def _labels_per_token(labels, tokens):
    """Labels of shape `(batch, length)`, or a `ValueError`."""
    shape, length = labels.shape, tokens.shape[1]
    rank = len(shape)
    if rank == 3 and shape[-1] not in (1, None):
        raise ValueError(
            "Labels must be integers, one for each token. One-hot labels are "
            "turned into them by `argmax(labels, axis=-1)`. Expected shape "
            f"(batch, length). Received: labels.shape={tuple(shape)}"
        )
    if rank not in (2, 3) or not _same(shape[1], length):
        _refuse("labels", shape, "`(batch, length)`", tokens)
    # A shape unknown while tracing must not be broadcast.
    return keras.ops.reshape(labels, keras.ops.shape(tokens)[:2])


def class_weights(class_weight, vocabulary_size):
    """The weight of each token id, as a float32 array.

    Args:
        class_weight: dict from token ids to weights. Others have weight 1.
        vocabulary_size: int.

    Raises:
        ValueError: if keys are no token ids, or values no weights.
    """
    weights = np.ones(vocabulary_size, "float32")
    if not isinstance(class_weight, dict):
        _refuse_class_weight(class_weight, vocabulary_size)
    for token, weight in class_weight.items():
        if not (
            isinstance(token, numbers.Integral)
            and int(token) in range(vocabulary_size)
            and isinstance(weight, numbers.Real)
            and 0 <= float(weight) < float("inf")
        ):
            received = dict([(token, weight)])
            _refuse_class_weight(received, vocabulary_size)
        weights[int(token)] = weight
    return weights


def _shifted(x, last=None):
    end = x[:, :1]
    if last is not None:
        end = keras.ops.full_like(end, last)
    return keras.ops.concatenate([x[:, 1:], end], axis=1)


def _same_document(segment_ids):
    """1 where the next token is of the same document, else 0."""
    same = keras.ops.equal(_shifted(segment_ids), segment_ids)
    return keras.ops.cast(same, "float32")


def _weights_per_token(weights, tokens):
    """Weights that broadcast to `(batch, length)`, or a `ValueError`."""
    weights = keras.ops.cast(weights, "float32")
    shape, length = weights.shape, tokens.shape[1]
    rank = len(shape)
    if rank == 1:
        return weights[:, None]
    if rank == 2 and (shape[1] == 1 or _same(shape[1], length)):
        return weights
    if rank == 3 and shape[2] in (1, None) and _same(shape[1], length):
        return keras.ops.reshape(weights, keras.ops.shape(tokens)[:2])
    _refuse("sample_weight", shape, "`(batch, length)` or `(batch,)`", tokens)


def _same(size, other):
    return size is None or other is None or size == other


def _refuse(name, shape, expected, tokens):
    raise ValueError(
        f"`{name}` must have shape {expected}, like the token ids. "
        f"Received: {name}.shape={tuple(shape)} and "
        f"token_ids.shape={tuple(tokens.shape[:2])}"
    )


def _refuse_class_weight(class_weight, vocabulary_size):
    raise ValueError(
        "Received an invalid value for argument `class_weight`, expected a "
        f"dict from token ids in [0, {vocabulary_size}) to weights of at "
        f"least 0. Received: class_weight={class_weight!r}"
    )
