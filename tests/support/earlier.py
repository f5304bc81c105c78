"""Files that earlier versions of the package wrote."""

import json
import zipfile

import keras
import pytest
from packaging.version import Version


def load(path):
    """A model of a `.keras` file.

    Skips the test where Keras is older than what wrote the file: it reads
    what it wrote itself, and what older versions did.
    """
    with zipfile.ZipFile(path) as archive:
        writer = json.loads(archive.read("metadata.json"))["keras_version"]
    if Version(keras.__version__) < Version(writer):
        pytest.skip(f"written by Keras {writer}")
    return keras.models.load_model(path)
