"""Corpora larger than memory: files that are mapped, not read."""

import os
import stat
from pathlib import Path

import numpy as np

_GZIP = b"\x1f\x8b"


def map_corpus(path: str | os.PathLike, dtype: str = "uint8") -> np.ndarray:
    """Maps a file into memory, of which only what is used will be read.

    `split_by_position`, `training_windows` and `evaluation_windows` take the
    result as they take an array, and read the bytes of their windows alone:
    a corpus may be larger than memory.

    Args:
        path: Path of one file, not compressed. Its bytes are taken as they
            are (`read_corpus` reads folders, gzip and UTF-16).
        dtype: `"uint8"` for bytes; `"uint16"` or `"int32"` for a file of
            token ids, as `array.tofile` writes them. Defaults to `"uint8"`.

    Returns:
        data: Read-only array of shape `(file size // size of an id,)`.

    Raises:
        ValueError: if there is no such file, it is empty or compressed, or
            its size is no multiple of an id's.

    Example:
    ```python
    data = keras_reformer.data.map_corpus("enwik9")
    train, validation, test = keras_reformer.data.split_by_position(data)
    dataset = keras_reformer.data.training_windows(train, 65536, 1, seed=0)
    ```
    """
    if dtype not in ("uint8", "uint16", "int32"):
        raise ValueError(
            "Expected the dtype of bytes or of token ids, 'uint8', 'uint16' "
            f"or 'int32'. Received: dtype={dtype!r}"
        )
    size = _size(Path(path), path, dtype)
    if not size or size % np.dtype(dtype).itemsize:
        raise _error(
            f"It has {size} bytes",
            f"some, and a multiple of {np.dtype(dtype).itemsize} for {dtype}",
            path,
        )
    # A plain array on the map: `np.memmap` would hand on its class, and its
    # costs, to each slice.
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _size(path: Path, source: str | os.PathLike, dtype: str) -> int:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _error("It is a folder or a device", "one file", source)
        with path.open("rb") as file:
            is_gzip = file.read(2) == _GZIP
    except OSError as error:
        wrong = f"It cannot be read ({error.strerror})"
        raise _error(wrong, "an existing file", source) from error
    if is_gzip and dtype == "uint8":
        wrong = "It is compressed by gzip"
        raise _error(wrong, "a file that is not: unpack it", source)
    return status.st_size


def _error(wrong: str, expected: str, path: str | os.PathLike) -> ValueError:
    return ValueError(
        f"The file cannot be mapped. {wrong}. Expected {expected}. Received: "
        f"path={os.fspath(path)!r}"
    )
