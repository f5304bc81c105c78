"""Text as one array of bytes, from wherever it lies."""

import collections
import glob
import os
import stat
import sysconfig
from pathlib import Path

import numpy as np

from keras_reformer.data.text_files import NoText, append_text
from keras_reformer.data.tfds_text import read_tfds

_NO_SOURCES = frozenset(
    {"dist-packages", "idle_test", "site-packages", "test", "tests"}
)


def read_corpus(
    source: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    verbose: bool = True,
) -> np.ndarray:
    """Reads a text corpus as one array of bytes.

    Several files are joined in the order of their paths, with a newline
    between them. gzip files are decompressed. Files that begin with the byte
    order mark of UTF-16 or UTF-32 become UTF-8; other bytes stay as they are.

    Of a folder or a glob these are left out: names that begin with a dot,
    links to folders, broken links, pipes, sockets and devices; files that are
    empty, unreadable, damaged, compressed by anything but gzip, or binary
    (with NUL bytes and not UTF-8, or with more than a tenth of NULs). A single
    file may be binary; for the other reasons it is refused.

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
        verbose: bool. Whether to print how many files of a folder or a glob
            were read, and how many were left out for which reason. Defaults
            to `True`.

    Returns:
        data: Read-only uint8 array of shape `(number of bytes,)`.

    Raises:
        ValueError: if there is nothing at `source`, no text in it, or it
            cannot be read.
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
        text = _read_files(_python_sources(), name)
    else:
        text = _read_path(name, verbose)
    if not text:
        raise _error("It is empty", "a source with at least one byte", name)
    data = np.frombuffer(text, np.uint8)
    data.flags.writeable = False
    return data


def _error(wrong: str, expected: str, source: str) -> ValueError:
    return ValueError(
        f"No text could be read. {wrong}. Expected {expected}. "
        f"Received: source={source!r}. Give a file, a folder, a glob, "
        "'tfds:NAME' or 'python'."
    )


def _read_path(source: str, verbose: bool) -> bytearray:
    if not source:
        # `Path("")` would be the current folder.
        raise _error("The source is an empty string", "a name", source)
    path = Path(source).expanduser()
    left_out = collections.Counter()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        files = _glob_files(path, source)
    except OSError as error:
        raise _unreadable(error, source) from error
    else:
        if not stat.S_ISDIR(mode):
            return _read_file(path, source)
        files = _folder_files(path, source, left_out)
    return _read_files(files, source, left_out, verbose)


def _glob_files(pattern: Path, source: str) -> list[Path]:
    found = map(Path, glob.glob(str(pattern), recursive=True))
    files = sorted(path for path in found if not os.path.isdir(path))
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


def _read_file(path: Path, source: str) -> bytearray:
    text = bytearray()
    try:
        append_text(text, path, any_bytes=True)
    except NoText as error:
        expected = "a file with at least one byte of text"
        raise _error(str(error), expected, source) from error
    return text


def _read_files(
    paths: list[Path],
    source: str,
    left_out: collections.Counter | None = None,
    verbose: bool = False,
) -> bytearray:
    """Joins texts in one growing array, so that memory holds them once."""
    left_out = collections.Counter() if left_out is None else left_out
    text = bytearray()
    num_read = 0
    for path in paths:
        end = len(text)
        if end:
            text += b"\n"
        try:
            append_text(text, path)
            num_read += 1
        except NoText as error:
            del text[end:]
            left_out[error.reason] += 1
    summary = _summary(num_read, left_out)
    if not text:
        expected = "at least one file of text that is not empty"
        raise _error(f"There is no text in it ({summary})", expected, source)
    if verbose:
        print(f"corpus files: {summary}")
    return text


def _summary(num_read: int, left_out: collections.Counter) -> str:
    reasons = [f"{why} {count}" for why, count in sorted(left_out.items())]
    if not reasons:
        return f"{num_read} read"
    return f"{num_read} read, {left_out.total()} left out: {', '.join(reasons)}"


def _folder_files(
    folder: Path,
    source: str,
    left_out: collections.Counter,
    skipped: frozenset[str] = frozenset(),
) -> list[Path]:
    """All files below a folder, sorted by their paths.

    Args:
        folder: The folder.
        source: str. What the user called it.
        left_out: Counts names that are left out, by reason.
        skipped: Names of folders that are passed over.
    """

    def count(error: OSError):
        if Path(error.filename) == folder:
            raise _unreadable(error, source) from error
        left_out["unreadable"] += 1

    def is_wanted(root: str, name: str, is_folder: bool = False) -> bool:
        reason = None
        if name.startswith("."):
            reason = "hidden"
        elif is_folder and os.path.islink(os.path.join(root, name)):
            reason = "links to folders"
        left_out.update([reason] if reason else [])
        return reason is None

    files = []
    for root, folders, names in os.walk(folder, onerror=count):
        # In place: `os.walk` goes only into the folders that are left.
        folders[:] = [
            name
            for name in folders
            if name not in skipped and is_wanted(root, name, is_folder=True)
        ]
        files += [Path(root, name) for name in names if is_wanted(root, name)]
    return sorted(files)


def _python_sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    files = _folder_files(library, "python", collections.Counter(), _NO_SOURCES)
    return [path for path in files if path.suffix == ".py"]
