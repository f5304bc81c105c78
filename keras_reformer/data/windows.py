"""Windows of a text as batches of token ids for `fit` and `evaluate`."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

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
    The bytes stay in the host's memory, whatever the default device is.

    Args:
        data: uint8 array of shape `(number of bytes,)`, of which a byte's
            token id is its value plus 2; or uint16 or int32 array of token
            ids, which stay as they are.
        length: int. Tokens in a window.
        batch_size: int. Windows in a batch.
        seed: int. Chooses the places.
        first_step: int. The step of the first batch. Defaults to 0.
        num_steps: int. The number of batches. Defaults to no end (then `fit`
            needs `steps_per_epoch`).

    Returns:
        dataset: Pairs `(inputs, labels)` of int32 token ids of
            shape `(batch_size, length)`; `labels` is one byte further on.

    Raises:
        ValueError: if `data` is no such array or is shorter than one window
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
    cut = _cutter(data, length)

    def draw(step):
        # The algorithm is named because the automatic one may change with the
        # device, and with it the batches.
        starts = tf.random.stateless_uniform(
            (batch_size,),
            seed=tf.stack([tf.constant(seed, tf.int64), step]),
            maxval=num_places,
            dtype=tf.int64,
            alg="philox",
        )
        return cut(starts)

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
        data: uint8 array of shape `(number of bytes,)`, or uint16 or int32
            array of token ids, as in `training_windows`.
        length: int. Tokens in a window.
        batch_size: int. Windows in a batch.
        max_windows: int. Use only the first ones. Defaults to all.
        drop_remainder: bool. Whether to drop a last batch that is not full, so
            that all shapes are static. Defaults to `True`.

    Returns:
        dataset: Pairs `(inputs, labels)` of int32 token ids of
            shape `(batch_size, length)`; `labels` is one byte further on.

    Raises:
        ValueError: if `data` is no such array, is shorter than one window and
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
    cut = _cutter(data[: count * length + 1], length)
    numbers = tf.data.Dataset.range(count)
    batches = numbers.batch(batch_size, drop_remainder=drop_remainder)
    windows = batches.map(lambda batch: cut(batch * length))
    return windows.prefetch(tf.data.AUTOTUNE)


def _cutter(data: np.ndarray, length: int):
    """Returns a function of windows' first positions to inputs and labels."""
    windows = np.lib.stride_tricks.sliding_window_view(data, length + 1)
    dtype = windows.dtype
    offset = BYTE_OFFSET if dtype == np.uint8 else 0
    # TensorFlow keeps a Python function for as long as the outermost graph,
    # which in eager mode is for ever. It must not keep the text: that is the
    # dataset's to keep, whose `cut` holds `windows`.
    find: Callable[[], Any] = (
        weakref.ref(windows) if tf.executing_eagerly() else lambda: windows
    )

    def cut(starts):
        # By NumPy, out of the one array that there is. A tensor of it would
        # be a copy, in an accelerator's memory if that is the default device.
        ids = tf.numpy_function(
            lambda starts: find()[starts], [starts], dtype, stateful=False
        )
        ids.set_shape((starts.shape[0], windows.shape[1]))
        ids = tf.cast(ids, tf.int32) + offset
        return ids[:, :-1], ids[:, 1:]

    return cut


def _check_data(data: np.ndarray, length: int, batch_size: int) -> None:
    for name, value in (("length", length), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {name}={value}"
            )
    if data.ndim != 1 or data.dtype not in (np.uint8, np.uint16, np.int32):
        raise ValueError(
            "`data` must be a one-dimensional array of bytes, as "
            "`read_corpus` gives it, or of token ids in uint16 or int32. "
            "Received: "
            f"data.shape={data.shape}, data.dtype={data.dtype}"
        )
    if len(data) < length + 1:
        raise ValueError(
            "The data is shorter than one window. Expected at least "
            f"{length + 1} bytes (`length` + 1, for the last label). Received: "
            f"len(data)={len(data)}, length={length}. Give more text or lower "
            f"`length` to at most {max(len(data) - 1, 0)}."
        )
