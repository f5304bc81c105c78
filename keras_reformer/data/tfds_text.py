"""Text out of tensorflow-datasets."""

import os

import tensorflow as tf

from keras_reformer.data.tfds_examples import (
    import_tfds,
    prepared_builder,
    read_split,
)


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
    builder = prepared_builder(name, data_dir)
    features = _text_features(builder, name)
    splits = [split] if split else list(builder.info.splits)
    joined = bytearray()
    for part in splits:
        for text in _read_split(builder, part, features, name):
            joined += text + b"\n"
    del joined[-1:]
    return joined


def _text_features(builder, name: str) -> list[str]:
    tfds = import_tfds()
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
    dataset = read_split(builder, split, name)
    try:
        for example in dataset.as_numpy_iterator():
            yield from (example[feature] for feature in features)
    except tf.errors.OpError as error:
        raise ValueError(
            "The data set's files are damaged or cannot be read "
            f"({error.message}). Remove them to prepare them anew. Received: "
            f"source='tfds:{name}', files in {builder.data_dir}"
        ) from error
