"""Every example runs, for a moment."""

import pathlib
import runpy
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SHORT = {
    "functional_model.py": ["--steps", "2"],
    "reverse_strings.py": ["--smoke"],
    "shakespeare.py": ["--steps", "2", "--data", "python"],
}


# The README's code, which is as long, runs in every test.
@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name
)
def test_example_runs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *SHORT[path.name]])
    runpy.run_path(str(path), run_name="__main__")
