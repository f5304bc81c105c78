"""Examples of tensorflow-datasets, and one sentence for what goes wrong."""

import importlib
import os

import tensorflow as tf
from google.protobuf import json_format

_BUILDERS = ("duplication", "enwik8")


def import_tfds():
    """tensorflow-datasets, which knows the builders of this package.

    Raises:
        ImportError: with the name of the extra, if it is missing.
    """
    try:
        # Also checked: a dependency that tensorflow-datasets fails to declare.
        import importlib_resources  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "Sources that begin with 'tfds:' and loaders of its data sets "
            "need tensorflow-datasets. "
            'Install it with `pip install "keras-reformer[tfds]"`.'
        ) from error
    for name in _BUILDERS:
        importlib.import_module(
            f"keras_reformer.data.datasets.{name}.{name}_dataset_builder"
        )
    return tensorflow_datasets


def prepared_builder(
    name: str,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
):
    """A builder whose files are there and whole.

    Args:
        name: str. `"NAME"` or `"NAME/CONFIG"`.
        data_dir: Folder of prepared data sets. Defaults to the library's own.
            A data set that is not there is downloaded.
        manual_dir: Folder of files that the user downloaded. Defaults to
            `downloads/manual` in `data_dir`.

    Returns:
        builder: `tfds.core.DatasetBuilder`.

    Raises:
        ImportError: if tensorflow-datasets is missing.
        ValueError: if there is no such data set, its files are damaged or
            not all there, or files that a user must download are missing.
    """
    tfds = import_tfds()
    builder = _builder(tfds, name, data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=config)
    # A folder that is missing is an AssertionError there, and every error of
    # the network an OSError.
    except (AssertionError, OSError, tfds.download.DownloadError) as error:
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        raise ValueError(
            f"The data set could not be prepared ({error}). Expected a "
            "network, or a folder where it is prepared as `data_dir`"
            + (f". {' '.join(instructions.split())} " if instructions else ". ")
            + f"Received: source='tfds:{name}', data_dir={_text(data_dir)}, "
            f"manual_dir={_text(manual_dir)}"
        ) from error
    _check_files(builder, name)
    return builder


def _builder(tfds, name: str, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            "There is no such data set. Expected a tensorflow-datasets name "
            "(https://www.tensorflow.org/datasets/catalog). "
            f"Received: source='tfds:{name}', data_dir={_text(data_dir)}"
        ) from error
    except json_format.Error as error:
        raise ValueError(
            "The data set's folder is damaged (its dataset_info.json is no "
            "JSON). Remove it to prepare it anew. Received: "
            f"source='tfds:{name}', data_dir={_text(data_dir)}"
        ) from error


def _text(path) -> str:
    return repr(None if path is None else os.fspath(path))


def _check_files(builder, name: str) -> None:
    """Raises a `ValueError` unless all files are there, and long enough."""
    # There is no folder where a test makes examples up.
    if not builder.data_path.exists():
        return
    splits = builder.info.splits
    wrong = None if splits else "without a dataset_info.json that names splits"
    for split in splits.values():
        paths = [os.fspath(path) for path in split.filepaths]
        # Not by `os`: prepared data sets may lie in a cloud's storage.
        missing = [path for path in paths if not tf.io.gfile.exists(path)]
        if missing:
            wrong = f"without {os.path.basename(missing[0])}"
        elif sum(map(_size, paths)) < _least(builder, split):
            wrong = f"with a part of split {split.name!r} only"
    if wrong:
        raise ValueError(
            f"The data set's folder is damaged: it is {wrong}, as a "
            "download or a copy that was cut off leaves it. Remove it to "
            f"prepare it anew. Received: source='tfds:{name}', files in "
            f"{builder.data_path}"
        )


def _size(path: str) -> int:
    return tf.io.gfile.stat(path).length


def _least(builder, split) -> int:
    """The least size in bytes of the files of a split."""
    if builder.info.file_format.value != "tfrecord":
        return 1
    # TFRecord adds a length and two checksums to each example.
    return split.num_bytes + 16 * split.num_examples


def read_split(builder, split: str, name: str) -> tf.data.Dataset:
    """The examples of a split, in the order of the files.

    Args:
        builder: what `prepared_builder` returns.
        split: str. A split, or a slice such as `"train[:10%]"`.
        name: str. What the user called the data set.

    Raises:
        ValueError: if there is no such split.
    """
    try:
        # So that every run reads the same examples in the same order.
        return builder.as_dataset(split=split, shuffle_files=False)
    except ValueError as error:
        raise ValueError(
            "There is no such split. Expected one of "
            f"{list(builder.info.splits)} or a slice of it. "
            f"Received: source='tfds:{name}', split={split!r}"
        ) from error
