import configparser
import importlib.machinery
import sys
from pathlib import Path

import keras
import pytest
from packaging.requirements import Requirement

from keras_reformer import _requirements

ROOT = Path(__file__).parents[1]


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


def test_an_old_tensorflow_is_refused(monkeypatch):
    monkeypatch.setattr("tensorflow.__version__", "2.9.1")
    with pytest.raises(ImportError, match="2.20 or newer. Received: .*2.9.1"):
        _requirements.check()
    monkeypatch.setattr("tensorflow.__version__", "2.21.0-dev20260101")
    _requirements.check()


def floors():
    """The oldest versions that the package and its extras allow, by name."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"]]
    lines += config["options.extras_require"].values()
    found = {}
    for line in "\n".join(lines).split("\n"):
        if line and not line.startswith(("#", "%")):
            requirement = Requirement(line)
            found.setdefault(requirement.name, requirement.specifier)
    return found


def pins():
    lines = (ROOT / ".ci" / "pins" / "colab.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and line[0] != "#")


def test_the_oldest_versions_are_those_of_the_pins():
    allowed, pinned = floors(), pins()
    for name in ("keras", "numpy", "tensorflow-cpu", "tensorboard"):
        assert pinned[name] in allowed[name], name
    for name in ("keras", "tensorflow-cpu"):
        (floor,) = allowed[name]
        assert pinned[name].startswith(floor.version + "."), name


def test_the_readme_names_the_oldest_versions():
    readme = (ROOT / "README.md").read_text()
    allowed = floors()
    oldest = ".".join(map(str, _requirements.OLDEST_TENSORFLOW))
    assert str(allowed["tensorflow-cpu"]) == f">={oldest}"
    versions = [str(allowed[name])[2:] for name in ("keras", "numpy")]
    for name, version in zip(
        ("TensorFlow", "Keras", "NumPy"), [oldest, *versions], strict=True
    ):
        assert f"| {name} | {version} |" in readme
