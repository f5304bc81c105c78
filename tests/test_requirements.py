import importlib.machinery
import sys

import keras
import pytest

from keras_reformer import _requirements


def test_passes_here():
    _requirements.check()


def test_missing_tensorflow_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"keras-reformer\[cpu\]") as error:
        _requirements.check()
    assert "[gpu]" in str(error.value) and "[tpu]" in str(error.value)


def test_leftover_folder_is_not_tensorflow(monkeypatch):
    leftover = importlib.machinery.ModuleSpec("tensorflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: leftover)
    with pytest.raises(ImportError, match="not installed"):
        _requirements.check()


def test_another_backend_names_the_cure(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match="KERAS_BACKEND=tensorflow"):
        _requirements.check()
