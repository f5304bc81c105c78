"""Windows of a byte array as batches of token ids for `fit` and `evaluate`."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_reformer.data.byte_tokenizer import BYTE_OFFSET


class Splits(NamedTuple):
    """Three contiguous parts of one array, in this order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_by_position(
    data: np.ndarray, validation: float = 0.05, test: float = 0.05
) -> Splits:
    """Splits an array by position: first train, then validation, then test.

    Args:
        data: Array of shape `(number of bytes,)`.
        validation: float. The part of `data` for validation. Defaults to 0.05.
        test: float. The part of `data`, at its end, for the test. Defaults to
            0.05.

    Returns:
        splits: The three parts, each a view of `data`.

    Raises:
        ValueError: if a part is negative or nothing is left for training.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ValueError(
            "`validation` and `test` must be 0 or more and add up to less "
            "than 1, so that something is left for training. "
            f"Received: validation={validation}, test={test}"
        )
    num_validation = int(len(data) * validation)
    num_test = int(len(data) * test)
    num_train = len(data) - num_validation - num_test
    return Splits(*np.split(data, [num_train, num_train + num_validation]))


def training_windows(
    data: np.ndarray,
    length: int,
    batch_size: int,
    *,
    seed: int,
    first_step: int = 0,
    num_steps: int | None = None,
) -> tf.data.Dataset:
    """Batches of windows at random places, for next-byte prediction.

    The batch of step `s` depends on `seed` and `s` alone: a run that resumes
    at `first_step` sees the batches that an uninterrupted one would have seen.

    Args:
        data: uint8 array of shape `(number of bytes,)`.
        length: int. Tokens in a window.
        batch_size: int. Windows in a batch.
        seed: int. Chooses the places.
        first_step: int. The step of the first batch. Defaults to 0.
        num_steps: int. The number of batches. Defaults to no end (then `fit`
            needs `steps_per_epoch`).

    Returns:
        dataset: Pairs `(inputs, labels)` of int32 token ids (byte + 2) of
            shape `(batch_size, length)`; `labels` is one byte further on.

    Raises:
        ValueError: if `data` is no byte array or is shorter than one window
            and its last label, `length + 1` bytes.

    Example:
    ```python
    data = keras_reformer.data.read_corpus("python")
    train, validation, test = keras_reformer.data.split_by_position(data)
    dataset = keras_reformer.data.training_windows(train, 4096, 2, seed=0)
    ```
    """
    _check_data(data, length, batch_size)
    num_places = len(data) - length
    data = tf.constant(data)

    def draw(step):
        # The algorithm is named because the automatic one may change with the
        # device, and with it the batches.
        starts = tf.random.stateless_uniform(
            (batch_size, 1),
            seed=tf.stack([tf.constant(seed, tf.int64), step]),
            maxval=num_places,
            dtype=tf.int64,
            alg="philox",
        )
        window = tf.gather(data, starts + tf.range(length + 1, dtype=tf.int64))
        ids = tf.cast(window, tf.int32) + BYTE_OFFSET
        return ids[:, :-1], ids[:, 1:]

    steps = tf.data.Dataset.counter(first_step)
    if num_steps is not None:
        steps = tf.data.Dataset.range(first_step, first_step + num_steps)
    batches = steps.map(
        draw, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def evaluation_windows(
    data: np.ndarray,
    length: int,
    batch_size: int,
    max_windows: int | None = None,
    *,
    drop_remainder: bool = True,
) -> tf.data.Dataset:
    """Batches of consecutive windows, in order, that predict each byte once.

    Dropped are the bytes at the end that do not fill a window and, with
    `drop_remainder`, the windows that do not fill a batch. The first byte is
    only an input.

    Args:
        data: uint8 array of shape `(number of bytes,)`.
        length: int. Tokens in a window.
        batch_size: int. Windows in a batch.
        max_windows: int. Use only the first ones. Defaults to all.
        drop_remainder: bool. Whether to drop a last batch that is not full, so
            that all shapes are static. Defaults to `True`.

    Returns:
        dataset: Pairs `(inputs, labels)` of int32 token ids (byte + 2) of
            shape `(batch_size, length)`; `labels` is one byte further on.

    Raises:
        ValueError: if `data` is no byte array, is shorter than one window and
            its last label, or gives fewer windows than one full batch.
    """
    _check_data(data, length, batch_size)
    count = (len(data) - 1) // length
    if max_windows is not None:
        count = min(count, max_windows)
    if count < (batch_size if drop_remainder else 1):
        raise ValueError(
            f"The data gives {count} windows, fewer than one batch. Lower "
            "`batch_size` or `length`, or raise `max_windows`. Received: "
            f"len(data)={len(data)}, length={length}, "
            f"batch_size={batch_size}, max_windows={max_windows}"
        )
    inputs = data[: count * length].reshape(count, length)
    labels = data[1 : count * length + 1].reshape(count, length)
    windows = tf.data.Dataset.from_tensor_slices((inputs, labels))
    batches = windows.batch(batch_size, drop_remainder=drop_remainder)
    return batches.map(_to_ids).prefetch(tf.data.AUTOTUNE)


def _to_ids(*windows):
    return tuple(tf.cast(part, tf.int32) + BYTE_OFFSET for part in windows)


def _check_data(data: np.ndarray, length: int, batch_size: int) -> None:
    for name, value in (("length", length), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {name}={value}"
            )
    if data.ndim != 1 or data.dtype != np.uint8:
        raise ValueError(
            "`data` must be a one-dimensional array of bytes, as "
            "`read_corpus` gives it. Received: "
            f"data.shape={data.shape}, data.dtype={data.dtype}"
        )
    if len(data) < length + 1:
        raise ValueError(
            "The data is shorter than one window. Expected at least "
            f"{length + 1} bytes (`length` + 1, for the last label). Received: "
            f"len(data)={len(data)}, length={length}. Give more text or lower "
            f"`length` to at most {max(len(data) - 1, 0)}."
        )
