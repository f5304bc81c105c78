"""Every benchmark runs in its quick setting, and the runner keeps its word."""

import importlib
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

# ruff: noqa: E402
import measuring
import run

SLOW = ()


@pytest.fixture
def in_process(monkeypatch):
    """Workers answer here, which saves the imports of a process."""

    def run_worker(name, case, *arguments, **options):
        module = importlib.import_module(name)
        answer = module.work({**case, "threads": 1})
        return json.loads(json.dumps(answer))

    monkeypatch.setattr(measuring, "run_worker", run_worker)


@pytest.mark.parametrize("name", run.TESTS)
def test_quick_setting(name, tmp_path, in_process):
    module = importlib.import_module(name)
    for package in getattr(module, "REQUIRES", ()):
        pytest.importorskip(package)
    stored, tables = tmp_path / "raw.json", tmp_path / "tables.md"
    picture = ["--picture", str(tmp_path / "picture.png")]
    arguments = [name, "--skip-tests", "--markdown", str(tables), *picture]
    run.main([*arguments, "--quick", "--json", str(stored)])
    assert (tmp_path / "picture.png").exists() == hasattr(module, "plot")
    first = tables.read_text()
    assert "(a quick setting, not tested)" in first
    run.main([*arguments, "--load", str(stored)])
    assert tables.read_text() == first
