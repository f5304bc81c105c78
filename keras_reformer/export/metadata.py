"""The `metadata.json` of an export: written by one, read by tools."""

import json
import os
import platform

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.files import reading

_FILE = "metadata.json"


def runtime_versions() -> dict[str, str]:
    """Returns the versions of Python, Keras, TensorFlow and NumPy."""
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def write_metadata(folder: str, model: keras.Model, more: dict) -> None:
    """Writes a model's name, config and versions, and what else is given.

    Args:
        folder: str. The SavedModel.
        model: the model that was exported.
        more: dict of what JSON can hold. Its entries take precedence.
    """
    content = {
        "name": model.name,
        "config": model.get_config(),
        "versions": runtime_versions(),
        **more,
    }
    with open(os.path.join(folder, _FILE), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_metadata(folder: str) -> dict:
    """Reads what `write_metadata` wrote.

    Args:
        folder: str. The SavedModel.

    Returns:
        dict; empty if there is no such file.

    Raises:
        ValueError: if the file is damaged.
    """
    path = os.path.join(folder, _FILE)
    if not os.path.exists(path):
        return {}
    with (
        reading(path, "an export's metadata"),
        open(path, encoding="utf-8") as file,
    ):
        return dict(json.load(file))
