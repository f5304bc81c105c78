"""Images as token ids: a pixel's value is a token."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

_MAGIC = b"\0\0\x08"


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Reads a file of bytes in the IDX format, as MNIST's are.

    Args:
        path: Path of the file, compressed by gzip or not.

    Returns:
        array: uint8 array of the file's shape: `(count, height, width)` for
            images, `(count,)` for labels.

    Raises:
        ValueError: if there is no such file, it is none of bytes in this
            format, or it is shorter or longer than its header says.

    Example:
    ```python
    images = keras_reformer.data.read_idx("t10k-images-idx3-ubyte.gz")
    token_ids = keras_reformer.data.image_tokens(images)  # (10000, 784)
    ```
    """
    content = _read(Path(path))
    rank = content[3] if len(content) > 3 else 0
    start = 4 + 4 * rank
    if not content.startswith(_MAGIC) or not rank or len(content) < start:
        raise _error("It does not begin as such a file does", path)
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != math.prod(shape):
        raise _error(
            f"Its header says {math.prod(shape)} bytes of shape {shape}, and "
            f"there are {len(content) - start}",
            path,
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def image_tokens(images: np.ndarray) -> np.ndarray:
    """Turns images into sequences: a token for each value of each pixel.

    Rows come one after the other, each from left to right, and the channels
    of a pixel are neighbours, as in Image Transformers: an image of 64 by 64
    pixels in three colours is a sequence of 12,288 tokens, whose positions
    have the axes `(64, 64, 3)`.

    Args:
        images: uint8 array of shape `(count, height, width)` or `(count,
            height, width, channels)`.

    Returns:
        token_ids: int32 array of shape `(count, height * width * channels)`,
            ids from 0 to 255.

    Raises:
        ValueError: if the images are no such array.

    Example:

    >>> from keras_reformer.data import image_tokens
    >>> image_tokens(np.array([[[0, 255], [7, 8]]], "uint8"))
    array([[  0, 255,   7,   8]], dtype=int32)
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or images.dtype != np.uint8:
        raise ValueError(
            "Images must be bytes of shape `(count, height, width)` or "
            "`(count, height, width, channels)`. Received: images.shape="
            f"{images.shape}, images.dtype={images.dtype}"
        )
    return images.reshape(len(images), -1).astype(np.int32)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        is_gzip = content.startswith(b"\x1f\x8b")
        return gzip.decompress(content) if is_gzip else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _error(f"It is damaged ({error})", path) from error
    except OSError as error:
        raise _error(f"It cannot be read ({error.strerror})", path) from error


def _error(wrong: str, path: str | os.PathLike) -> ValueError:
    return ValueError(
        f"No array could be read. {wrong}. Expected a file of bytes in the "
        "IDX format, such as t10k-images-idx3-ubyte.gz. Received: "
        f"path={os.fspath(path)!r}"
    )
