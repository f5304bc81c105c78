"""Checks of token ids and labels that are not in the vocabulary.

Eagerly they are a `ValueError`, in a graph an `InvalidArgumentError`. XLA
drops assertions, so there an unknown id is read as 0 and an unknown label
has weight zero. Masked ids, and labels of weight zero, may be anything.
"""

import tensorflow as tf


def check_token_ids(
    token_ids, mask, vocabulary_size, name="token_ids"
) -> list[tf.Operation]:
    """Refuses valid tokens outside `[0, vocabulary_size)`.

    Args:
        token_ids: Tensor of shape `(batch, length)`.
        mask: Tensor of the same shape, True at valid tokens, or None.
        vocabulary_size: int.
        name: what the tokens are called in the message.

    Returns:
        The assertion, in a graph; nothing eagerly.

    Raises:
        ValueError: eagerly, if a valid token is unknown.
    """
    allowed = _known(token_ids, vocabulary_size)
    if mask is not None:
        allowed |= ~tf.cast(mask, tf.bool)
    return require(
        allowed,
        name,
        token_ids,
        f"Token ids must lie in [0, {vocabulary_size}), the vocabulary, where "
        "`padding_mask` does not mask them.",
    )


def known_token_ids(token_ids, mask, vocabulary_size) -> tf.Tensor:
    """Token ids, checked, with 0 in place of each that is unknown.

    Args:
        token_ids: Tensor of shape `(batch, length)`.
        mask: Tensor of the same shape, True at valid tokens, or None.
        vocabulary_size: int.

    Returns:
        Tensor like `token_ids`.
    """
    checks = check_token_ids(token_ids, mask, vocabulary_size)
    with tf.control_dependencies(checks):
        known = _known(token_ids, vocabulary_size)
        return tf.where(known, token_ids, tf.zeros_like(token_ids))


def known_labels(
    labels, weights, vocabulary_size
) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels and weights, of which negative labels have none.

    Args:
        labels: Tensor of shape `(batch, length)`.
        weights: Float tensor of the same shape.
        vocabulary_size: int. Greater labels that have a weight are refused.

    Returns:
        labels: like `labels`, with 0 in place of each that is unknown.
        weights: like `weights`, zero for unknown labels.
    """
    labels = tf.convert_to_tensor(labels)
    checks = require(
        _below(labels, vocabulary_size) | (weights == 0),
        "labels",
        labels,
        f"Labels must be less than {vocabulary_size}, the vocabulary's size, "
        "where they have a weight. Negative labels, such as -100, have none.",
    )
    with tf.control_dependencies(checks):
        known = _known(labels, vocabulary_size)
        return (
            tf.where(known, labels, tf.zeros_like(labels)),
            tf.where(known, weights, tf.zeros_like(weights)),
        )


def _known(ids, size) -> tf.Tensor:
    ids = _signed(ids)
    return (ids >= 0) & (ids < size)


def _below(ids, size) -> tf.Tensor:
    return _signed(ids) < size


def _signed(ids) -> tf.Tensor:
    """Integers of a dtype that can hold any vocabulary's size."""
    ids = tf.convert_to_tensor(ids)
    if ids.dtype.is_floating or ids.dtype in (tf.int32, tf.int64):
        return ids
    return tf.cast(ids, tf.int64)


def require(allowed, name, values, message) -> list[tf.Operation]:
    """Refuses values that are not allowed.

    Args:
        allowed: Boolean tensor.
        name: of the values.
        values: Tensor of the same shape.
        message: what was expected.

    Returns:
        The assertion, in a graph; nothing eagerly.

    Raises:
        ValueError: eagerly, with the first values that are not allowed.
    """
    holds = tf.reduce_all(allowed)
    if tf.executing_eagerly():
        if not holds:
            examples = tf.boolean_mask(values, ~allowed)[:5].numpy().tolist()
            raise ValueError(f"{message} Received: {name}={examples}")
        return []
    refused = tf.where(allowed, tf.zeros_like(values), values)
    extremes = [tf.reduce_min(refused), tf.reduce_max(refused)]
    message = f"{message} Received, as least and greatest of {name}:"
    return [tf.debugging.Assert(holds, [message, *extremes])]
