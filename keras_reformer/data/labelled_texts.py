"""Labelled texts out of a folder or a zip file, one folder a class."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")


class LabelledTexts(NamedTuple):
    """Texts as bytes, int32 labels, and the classes' names by label."""

    texts: list[bytes]
    labels: np.ndarray
    class_names: tuple[str, ...]


def read_labelled_texts(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    class_names: tuple[str, ...] | None = None,
) -> LabelledTexts:
    """Reads labelled texts: `CLASS/NAME.txt` in a folder or a zip file.

    The folders of the classes may lie in others. Texts are in the order of
    their paths and stay bytes. For data without splits of its own, `split`
    reads a share that the names alone decide, and always in the same way:
    80, 10 and 10 in 100.

    Args:
        source: Path of a folder or of a zip file.
        split: `"train"`, `"validation"` or `"test"`. Only the texts of this
            split are read. Defaults to all texts.
        class_names: tuple of str. Names of the folders that count, in the
            order of the labels. Defaults to all folders with texts, sorted,
            also those without a text in the split: a class has the same
            label in each.

    Returns:
        data: `LabelledTexts(texts, labels, class_names)`: list of bytes,
            int32 array of shape `(number of texts,)` and tuple of str.

    Raises:
        ValueError: if there is no such folder or zip file, it is damaged, a
            class or the split has no text, or the split is unknown.

    Example:
    ```python
    reviews = keras_reformer.data.read_labelled_texts(
        "movie_reviews.zip", split="train"
    )
    dataset = keras_reformer.data.pad_documents(
        keras_reformer.data.documents(reviews.texts, reviews.labels),
        length=4096, batch_size=8, crop_seed=0,
    )
    ```
    """
    if split not in (None, *SPLITS):
        raise ValueError(
            f"There is no such split. Expected None or one of {SPLITS}. "
            f"Received: split={split!r}"
        )

    seen = set()

    def is_wanted(name):
        label = name.split("/")[0]
        seen.add(label)
        known = class_names is None or label in class_names
        return known and split in (None, split_of(name))

    path = Path(source)
    read = _zip_texts if path.is_file() else _folder_texts
    found = list(read(path, is_wanted))
    names = tuple(class_names or sorted(seen))
    missing = [name for name in names if name not in seen]
    _check_found(found, missing, source, split)
    labels = [names.index(name.split("/")[0]) for name, _ in found]
    texts = [text for _, text in found]
    return LabelledTexts(texts, np.array(labels, np.int32), names)


def split_of(name: str) -> str:
    """The split of a text, by the hash of its folder and file name.

    Args:
        name: str. `"CLASS/NAME.txt"`.

    Returns:
        split: `"train"`, `"validation"` or `"test"`.
    """
    digest = hashlib.sha256(name.encode()).digest()
    number = int.from_bytes(digest[:8], "big") % 10
    return SPLITS[max(number - 7, 0)]


def _check_found(texts, missing, source, split) -> None:
    if missing or not texts:
        raise ValueError(
            "There are no labelled texts. Expected files `CLASS/NAME.txt` of "
            f"each class{f' in {missing}' if missing else ''}. Received: "
            f"source={os.fspath(source)!r}, split={split!r}"
        )


def _folder_texts(folder: Path, is_wanted: Callable) -> Iterator:
    """Names `CLASS/NAME.txt` below a folder, and their texts."""
    if not folder.is_dir():
        raise ValueError(
            "There is no such folder or zip file. Expected one with files "
            f"`CLASS/NAME.txt`. Received: source={os.fspath(folder)!r}"
        )
    for path in sorted(folder.rglob("*.txt")):
        name = "/".join(path.parts[-2:])
        # A text in the folder itself has no class.
        if path.parent != folder and is_wanted(name):
            yield name, path.read_bytes()


def _zip_texts(path: Path, is_wanted: Callable) -> Iterator:
    """The same of a zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for full_name in sorted(archive.namelist()):
                parts = PurePosixPath(full_name).parts
                name = "/".join(parts[-2:])
                is_text = full_name.endswith(".txt") and len(parts) > 1
                if is_text and is_wanted(name):
                    yield name, archive.read(full_name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            "The zip file is damaged, or none. Expected one with files "
            f"`CLASS/NAME.txt`. Received: source={os.fspath(path)!r}, which "
            f"fails with {type(error).__name__}: {error}"
        ) from error
