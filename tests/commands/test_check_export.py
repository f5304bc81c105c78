import shutil

import numpy as np
import pytest

from keras_reformer.cli import main
from keras_reformer.export.check import comparison, runner


@pytest.fixture
def no_engines(monkeypatch):
    monkeypatch.setattr(comparison, "ENGINES", {})


@pytest.mark.slow
def test_a_line_for_every_loader(exported, capsys, no_engines):
    assert main(["check-export", exported]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["python", "c", "grpc"]
    assert "reference: 5 requests" in lines[0]
    expected = "skipped" if runner.missing() else "equal: 5 requests"
    assert expected in lines[1]


@pytest.mark.slow
def test_a_loader_that_differs(exported, capsys, monkeypatch):
    def wrong(path, inputs):
        shape = (*inputs["token_ids"].shape, 11)
        return {"logits": np.zeros(shape, "float32")}

    monkeypatch.setattr(runner, "missing", lambda: "no C compiler")
    monkeypatch.setattr(comparison, "ENGINES", {"wrong": wrong})
    assert main(["check-export", exported]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "skipped: no C compiler" in lines[1]
    assert lines[3].startswith("wrong        DIFFERS: 1 requests")


def test_no_model(tmp_path, capsys):
    assert main(["check-export", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "There is no SavedModel" in line


def test_no_requests(exported, tmp_path, capsys):
    copy = str(tmp_path / "1")
    shutil.copytree(exported, copy, ignore=lambda *_: ["assets.extra"])
    assert main(["check-export", copy]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing to compare" in line
