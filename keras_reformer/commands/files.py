"""Files that are replaced whole or not at all."""

import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path, previous=None):
    """Gives a path to write to, which replaces a file once it is whole.

    Whatever ends the process meanwhile, the file is the old one or the new
    one; with `previous`, the old one there and none at `path`, for a moment.

    Args:
        path: str. The file to write or replace.
        previous: str or `None`. Where to keep what was at `path`.

    Yields:
        str. A path in the same folder, with the same suffix.

    Raises:
        OSError: if it cannot be written; then what was there stays.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"tmp-{name}")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        if previous is not None and os.path.exists(path):
            os.replace(path, previous)
        os.replace(temporary, path)
        if os.name == "posix":
            # Elsewhere folders cannot be opened.
            _sync(folder or os.curdir, os.O_RDONLY)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if not isinstance(error, OSError):
            raise
        reason = f"{error.strerror or error} (what was there before is kept)"
        raise OSError(error.errno, reason, path) from error


def write_text(path, text):
    """Writes a text file, atomically."""
    with replacing(path) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)


def write_json(path, values):
    """Writes a JSON file, atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def _sync(path, flags):
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
