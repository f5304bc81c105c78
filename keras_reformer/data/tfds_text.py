"""Text out of tensorflow-datasets."""

import os

import tensorflow as tf


def read_tfds(
    name: str,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
) -> bytearray:
    """Reads all text features of a data set, example after example.

    Args:
        name: str. A tensorflow-datasets name, `"NAME"` or `"NAME/CONFIG"`.
        data_dir: Folder of prepared data sets. Defaults to the library's own.
            A data set that is not there is downloaded.
        split: str. A split such as `"train[:10%]"`. Defaults to all splits,
            one after the other.

    Returns:
        text: bytearray. The texts, with a newline between them.

    Raises:
        ImportError: if tensorflow-datasets is missing.
        ValueError: if there is no such data set or split, no text in it, or
            its files are damaged.
    """
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            "There is no such data set. Expected a tensorflow-datasets name "
            "(https://www.tensorflow.org/datasets/catalog). "
            f"Received: source='tfds:{name}', data_dir={data_dir!r}"
        ) from error
    builder.download_and_prepare()
    features = _text_features(builder, tfds, name)
    splits = [split] if split else list(builder.info.splits)
    joined = bytearray()
    for part in splits:
        for text in _read_split(builder, part, features, name):
            joined += text + b"\n"
    del joined[-1:]
    return joined


def _import_tfds():
    try:
        # Also checked: a dependency that tensorflow-datasets fails to declare.
        import importlib_resources  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "Sources that begin with 'tfds:' need tensorflow-datasets. "
            'Install it with `pip install "keras-reformer[tfds]"`.'
        ) from error
    return tensorflow_datasets


def _text_features(builder, tfds, name: str) -> list[str]:
    features = builder.info.features
    texts = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Text)
    ]
    if not texts:
        raise ValueError(
            "The data set has no text feature. Expected one with a "
            "`tfds.features.Text` at the top level of its features. "
            f"Received: source='tfds:{name}', features={list(features)}"
        )
    return texts


def _read_split(builder, split: str, features: list[str], name: str):
    try:
        # In the order of the files, so that every run reads the same bytes.
        dataset = builder.as_dataset(split=split, shuffle_files=False)
    except ValueError as error:
        raise ValueError(
            "There is no such split. Expected one of "
            f"{list(builder.info.splits)} or a slice of it. "
            f"Received: source='tfds:{name}', split={split!r}"
        ) from error
    try:
        for example in dataset.as_numpy_iterator():
            yield from (example[feature] for feature in features)
    except tf.errors.OpError as error:
        raise ValueError(
            "The data set's files are damaged or cannot be read "
            f"({error.message}). Remove them to prepare them anew. Received: "
            f"source='tfds:{name}', files in {builder.data_dir}"
        ) from error
