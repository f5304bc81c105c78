"""Every example runs, for a moment."""

import pathlib
import runpy
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SHORT = {
    "functional_model.py": ["--steps", "2"],
    "shakespeare.py": ["--steps", "2", "--data", "python"],
}
# It measures, draws and exports what it trains.
SLOW = {"shakespeare.py"}


def examples():
    for path in sorted(EXAMPLES.glob("*.py")):
        marks = [pytest.mark.slow] if path.name in SLOW else []
        yield pytest.param(path, marks=marks, id=path.name)


@pytest.mark.parametrize("path", list(examples()))
def test_example_runs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *SHORT[path.name]])
    runpy.run_path(str(path), run_name="__main__")
