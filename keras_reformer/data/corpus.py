"""Text as one array of bytes, from wherever it lies."""

import glob
import os
import stat
import sysconfig
from pathlib import Path

import numpy as np

from keras_reformer.data.tfds_text import read_tfds

_NO_SOURCES = frozenset(
    {"dist-packages", "idle_test", "site-packages", "test", "tests"}
)


def read_corpus(
    source: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
) -> np.ndarray:
    """Reads a text corpus as one array of bytes.

    Several files are joined in the order of their paths, with a newline
    between them. In a folder or behind a glob, files that are no text (they
    hold a NUL byte) and names that begin with a dot are left out. A single
    file is taken as it is.

    Args:
        source: One of
            - `"python"`: the running Python's own standard library, without
              its tests (write `"./python"` for a file of that name),
            - the path of a file, or of a folder, read recursively,
            - a glob such as `"books/**/*.txt"`,
            - `"tfds:NAME"` or `"tfds:NAME/CONFIG"`: all text features of a
              tensorflow-datasets data set (extra `tfds`).
        data_dir: Folder of prepared tensorflow-datasets. Defaults to that
            library's own. A data set that is not there is downloaded.
        split: str. A tensorflow-datasets split such as `"train[:10%]"`.
            Defaults to all splits, one after the other.

    Returns:
        data: Read-only uint8 array of shape `(number of bytes,)`.

    Raises:
        ValueError: if there is nothing at `source`, nothing to read in it, or
            no permission to read it.
        ImportError: if `source` needs the extra `tfds` and it is missing.

    Example:
    ```python
    data = keras_reformer.data.read_corpus("python")
    ```
    """
    name = os.fspath(source)
    if name.startswith("tfds:"):
        text = read_tfds(name.removeprefix("tfds:"), data_dir, split)
    elif data_dir is not None or split is not None:
        raise ValueError(
            "`data_dir` and `split` are for tensorflow-datasets only. Write "
            f"the source as 'tfds:NAME' or leave them out. Received: "
            f"source={name!r}, data_dir={data_dir!r}, split={split!r}"
        )
    elif name == "python":
        text = _join(_python_sources(), name)
    else:
        text = _read_path(name)
    if not text:
        raise _error("It is empty", "a source with at least one byte", name)
    return np.frombuffer(text, np.uint8)


def _error(wrong: str, expected: str, source: str) -> ValueError:
    return ValueError(
        f"No text could be read. {wrong}. Expected {expected}. "
        f"Received: source={source!r}. Give a file, a folder, a glob, "
        "'tfds:NAME' or 'python'."
    )


def _read_path(source: str) -> bytes:
    if not source:
        # `Path("")` would be the current folder.
        raise _error("The source is an empty string", "a name", source)
    path = Path(source).expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _join(_glob_files(path, source), source)
    except OSError as error:
        raise _unreadable(error, source) from error
    if stat.S_ISDIR(mode):
        return _join(_folder_files(path, source), source)
    return _read_file(path, source)


def _glob_files(pattern: Path, source: str) -> list[Path]:
    found = map(Path, glob.glob(str(pattern), recursive=True))
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise _error(
            "There is nothing there", "an existing path or glob", source
        )
    return files


def _unreadable(error: OSError, source: str) -> ValueError:
    return _error(
        f"{error.filename or source} cannot be read ({error.strerror})",
        "files and folders that this user may read",
        source,
    )


def _read_file(path: Path, source: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error, source) from error


def _join(paths: list[Path], source: str) -> bytes:
    contents = [_read_file(path, source) for path in paths]
    texts = [text for text in contents if text and b"\0" not in text]
    if not texts:
        raise _error(
            "There is no text in it",
            "at least one file of text that is not empty",
            source,
        )
    return b"\n".join(texts)


def _folder_files(
    folder: Path, source: str, skipped: frozenset[str] = frozenset()
) -> list[Path]:
    """All files below a folder, sorted by their paths."""

    def stop(error: OSError):
        raise _unreadable(error, source) from error

    files = []
    for root, folders, names in os.walk(folder, onerror=stop):
        # In place: `os.walk` goes only into the folders that are left.
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in skipped
        ]
        visible = [name for name in names if not name.startswith(".")]
        files += [Path(root, name) for name in visible]
    return sorted(path for path in files if path.is_file())


def _python_sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    files = _folder_files(library, "python", _NO_SOURCES)
    return [path for path in files if path.suffix == ".py"]
