"""Files that cannot be read, files that belong together, presets' folders."""

import contextlib
import importlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator

_HUB = "hf://"
# What is looked for in a repository of the Hugging Face hub.
_PATTERNS = (
    "*.json",
    "*.h5",
    "*.safetensors",
    "pytorch_model*.bin",
    "assets/tokenizer/*",
)


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


def read_json(path: pathlib.Path) -> dict:
    """The dict in a JSON file."""
    with reading(path, "JSON of one object"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content


def existing(directory: pathlib.Path, names: Iterable[str]) -> pathlib.Path:
    """The path of the first of some files that a folder has."""
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise ValueError(
        f"The folder lacks a file. Expected {' or '.join(names)}. Received: "
        f"directory={str(directory)!r}"
    )


@contextlib.contextmanager
def written_together(directory: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A place for new files, which move to a folder once all are written.

    Until then the folder's own files of these names stay whole.

    Args:
        directory: path of the folder, which is made.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory) as new:
        yield pathlib.Path(new)
        for path in pathlib.Path(new).iterdir():
            path.replace(directory / path.name)


def find_folder(
    preset, names: Iterable[str], patterns: Iterable[str] = _PATTERNS
) -> pathlib.Path:
    """The folder of a preset, downloaded if it is on the Hugging Face hub.

    Args:
        preset: path of a folder, or `"hf://owner/name"`.
        names: of configurations, to tell where there is no folder.
        patterns: of the files that are looked for on the hub. Defaults to
            those of models and tokenizers.

    Raises:
        ValueError: if there is no such folder.
        ImportError: if `"hf://"` is asked for without `huggingface_hub`.
    """
    if isinstance(preset, str) and preset.startswith(_HUB):
        return _downloaded(preset, patterns)
    is_path = isinstance(preset, (str, os.PathLike))
    if not is_path or not pathlib.Path(preset).is_dir():
        raise ValueError(
            f"There is no such preset. Expected one of {list(names)}, a "
            "folder that `save_to_preset` wrote, or 'hf://owner/name'. "
            f"Received: preset={preset!r}"
        )
    return pathlib.Path(preset)


def _downloaded(preset: str, patterns: Iterable[str]) -> pathlib.Path:
    if not re.fullmatch(r"hf://[\w.-]+/[\w.-]+", preset):
        raise ValueError(
            "A preset on the Hugging Face hub is named by its owner and its "
            f"name. Expected 'hf://owner/name'. Received: preset={preset!r}"
        )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            "A preset of the Hugging Face hub is downloaded by the package "
            "huggingface_hub. Expected it to be installed: pip install "
            f'"keras-reformer[hub]". Received: preset={preset!r}'
        ) from error
    return pathlib.Path(
        hub.snapshot_download(
            repo_id=preset.removeprefix(_HUB), allow_patterns=list(patterns)
        )
    )
