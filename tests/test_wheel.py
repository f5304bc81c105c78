"""The wheel holds the package, and works where no repository is."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import keras_reformer

ROOT = Path(__file__).parents[1]
SOURCES = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
PIP = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
OFFLINE = ["--no-deps", "--no-index", "--disable-pip-version-check"]
USE = """
import numpy as np
import keras_reformer
model = keras_reformer.ReformerCausalLM(11, 1, 2, 8, 8, 32, seed=0)
assert model(np.zeros((1, 5), "int32")).shape == (1, 5, 11)
print(keras_reformer.__version__, keras_reformer.__file__)
"""


def package_files(root):
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root.parent).as_posix()
        for path in files
        if "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The path of a wheel, built by what is installed here."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "keras_reformer",
        source / "keras_reformer",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    target = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", *OFFLINE, "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", target, source], check=True)
    (path,) = target.iterdir()
    return path


def test_it_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    held = {name for name in names if name.startswith("keras_reformer/")}
    assert held == package_files(ROOT / "keras_reformer")
    assert "keras_reformer/py.typed" in held
    (entry,) = (name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert b"keras-reformer = " in archive.read(entry)


def test_it_works_outside_of_the_repository(wheel, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [*PIP, "install", *OFFLINE, "--no-compile", "--target", target]
    subprocess.run([*install, wheel], check=True)
    run = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    version, path = run.stdout.splitlines()[-1].split(maxsplit=1)
    assert version == keras_reformer.__version__
    assert Path(path).is_relative_to(target)


# What Colab's TPU runtime and Kaggle's v5e-8 have of what is required.
NOTEBOOKS = {
    "colab": {"keras": "3.13.2", "numpy": "2.1.3", "jax": "0.7.2"},
    "kaggle": {
        "keras": "3.13.2",
        "numpy": "2.1.3",
        "tensorflow-cpu": "2.20.0",
        "jax": "0.7.2",
    },
}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_pip_replaces_nothing_of_a_notebooks(notebook, wheel, tmp_path):
    """The plan of `pip install keras-reformer`, with nothing to download."""
    venv.create(tmp_path / "venv", with_pip=False)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    for name, version in NOTEBOOKS[notebook].items():
        folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata)
    python = tmp_path / "venv" / "bin" / "python"
    report = tmp_path / "report.json"
    run = subprocess.run(
        [*PIP, "--python", python, "install", "--no-index", "--dry-run"]
        + ["--disable-pip-version-check", "--report", report, wheel],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    plan = json.loads(report.read_text())["install"]
    assert [item["metadata"]["name"] for item in plan] == ["keras-reformer"]
