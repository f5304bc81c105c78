"""The check that token ids lie in a model's vocabulary."""

import numpy as np
import tensorflow as tf


def check_token_ids(ids, vocabulary_size: int):
    """Checks that token ids lie in a vocabulary.

    A gather outside its table is an error on some devices and silent on
    others, so the check belongs before the model. Arrays are checked at once.
    Tensors and datasets are checked when they are computed, by assertions that
    XLA would drop: use them in a `tf.data` pipeline, which XLA never compiles.

    Args:
        ids: Array of token ids of any shape, a tensor, or a `tf.data.Dataset`.
            Every integer tensor in a dataset's elements is taken for token
            ids; others (weights, bool masks) are left alone.
        vocabulary_size: int. One more than the largest id allowed.

    Returns:
        ids: What was given; of a dataset, a new one with the check in it.

    Raises:
        ValueError: if an id of an array is negative, `vocabulary_size` or
            larger, or if an array holds no integers.
        tf.errors.InvalidArgumentError: the same of a tensor or dataset, when
            it is computed.

    Example:
    ```python
    dataset = keras_reformer.data.check_token_ids(dataset, 258)
    ```
    """
    if isinstance(ids, tf.data.Dataset):
        return ids.map(
            lambda *element: tf.nest.map_structure(
                lambda leaf: _check_leaf(leaf, vocabulary_size),
                element if element[1:] else element[0],
            )
        )
    if tf.is_tensor(ids):
        return _check_tensor(ids, vocabulary_size)
    return _check_array(np.asarray(ids), vocabulary_size)


def _message(vocabulary_size: int) -> str:
    return (
        "Token ids outside the vocabulary. Expected ids from 0 to "
        f"{vocabulary_size - 1}. Tokenize with the model's own vocabulary or "
        f"raise `vocabulary_size`. Received: vocabulary_size={vocabulary_size}"
    )


def _check_array(ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    if not ids.size:
        return ids.astype(np.int32)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            "Token ids must be integers. Convert them with "
            f"`ids.astype('int32')`. Received: dtype={ids.dtype}"
        )
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary_size:
        raise ValueError(
            f"{_message(vocabulary_size)}, smallest id={low}, largest id={high}"
        )
    return ids


def _check_tensor(ids: tf.Tensor, vocabulary_size: int) -> tf.Tensor:
    message = _message(vocabulary_size)
    # In int64, so that a vocabulary size that the ids' type cannot hold works.
    wide = tf.cast(ids, tf.int64)
    size = tf.constant(vocabulary_size, tf.int64)
    # Assertions run even though nothing depends on them: in a `tf.function`
    # and in a pipeline, TensorFlow orders operations with side effects itself.
    tf.debugging.assert_less(wide, size, message)
    tf.debugging.assert_greater_equal(wide, tf.constant(0, tf.int64), message)
    return ids


def _check_leaf(leaf, vocabulary_size: int):
    if tf.is_tensor(leaf) and leaf.dtype.is_integer:
        return _check_tensor(leaf, vocabulary_size)
    return leaf
