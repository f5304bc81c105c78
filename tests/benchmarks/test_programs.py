"""Exported runs give what `fit` gives, elsewhere."""

import os
import subprocess
import sys

import pytest
import recall
import reviews
import runs

pytest.importorskip("jax")
pytestmark = pytest.mark.slow
SMALL = [
    *("--layers", "2", "--width", "16", "--chunk-length", "8"),
    *("--steps", "6", "--evaluate-every", "3", "--seeds", "0,1"),
]
RECALL = [
    *("--kinds", "lsh", "--length", "32", "--pairs", "3", "--batch-size", "4"),
    *("--vocabulary", "16", "--rounds", "0,2", "--evaluate-queries", "24"),
]
REVIEWS = [
    *("--kinds", "lsh", "--length", "32", "--pretrain-steps", "4"),
    *("--batch-size", "3", "--pretrain-batch-size", "2", "--rounds", "2"),
]


def run_here(script, folder, arguments, monkeypatch):
    arguments = [*arguments, *SMALL, "--folder", str(folder)]
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    script.main()


def run_there(folders):
    script = os.path.join(os.path.dirname(runs.__file__), "on_device.py")
    subprocess.run(
        [sys.executable, script, *map(str, folders)],
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def assert_equal(folder, other, table, *columns, rel=1e-4):
    here, there = (runs.read_rows(each / table) for each in (folder, other))
    assert len(here) == len(there) > 0
    for one, two in zip(here, there, strict=True):
        for name in columns:
            expected = two[name]
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=rel)
            assert one[name] == expected, name


def test_recall_there_is_recall_here(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    run_here(recall, here, RECALL, monkeypatch)
    run_here(recall, there, [*RECALL, "--export"], monkeypatch)
    # Seeds share programs: a step, a validation, and two evaluations.
    assert len(list((there / "programs").iterdir())) == 4
    names = ("lsh-0", "lsh-1")
    run_there(there / name for name in names)
    for name in names:
        columns = "step", "loss", "val_loss", "val_accuracy"
        assert_equal(here / name, there / name, "curve.csv", *columns)
        columns = "rounds", "sequences", "loss", "accuracy"
        assert_equal(here / name, there / name, "evaluations.csv", *columns)


def test_a_run_goes_on_from_another(tmp_path, monkeypatch, archive):
    here, there = tmp_path / "here", tmp_path / "there"
    arguments = [*REVIEWS, "--data", str(archive)]
    run_here(reviews, here, arguments, monkeypatch)
    run_here(reviews, there, [*arguments, "--export"], monkeypatch)
    run_there([there / "pretraining" / "lsh-0", there / "lsh-0"])
    pretraining = (each / "pretraining" / "lsh-0" for each in (here, there))
    # Adam makes whole steps of gradients as small as rounding errors, and
    # `fit` runs without XLA here.
    assert_equal(*pretraining, "curve.csv", "val_loss", rel=1e-3)
    # From a start of its own the first loss would be another.
    both = here / "lsh-0", there / "lsh-0"
    assert_equal(*both, "curve.csv", "loss", "val_accuracy", rel=1e-3)
    columns = "split", "rounds", "reviews", "accuracy"
    assert_equal(*both, "evaluations.csv", *columns)
