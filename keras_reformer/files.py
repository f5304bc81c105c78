"""What a file that cannot be read is told as, whatever it was read by."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def reading(path: str | os.PathLike, expected: str) -> Iterator[None]:
    """Turns what a parser raises into one error that names the file.

    A damaged file makes parsers raise anything: `KeyError`, `EOFError`,
    `UnicodeDecodeError`, `MemoryError`, errors of zip, HDF5 and TensorFlow.

    Args:
        path: of the file.
        expected: str. What the file should be.

    Raises:
        ValueError: with path and reason.
        OSError: as it came, if it names its file.
        ImportError: as it came.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"The file is damaged, or not what it should be. Expected "
            f"{expected}. Received: path={os.fspath(path)!r}, which fails "
            f"with {type(error).__name__}: {error}"
        ) from error
