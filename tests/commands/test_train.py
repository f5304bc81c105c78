import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_reformer.cli import main
from keras_reformer.commands import callbacks, train, training
from keras_reformer.commands.run_folder import RunFolder
from tests.support.tiny_runs import make_config, to_arguments, write_corpus

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    """An uninterrupted run of the command: its folder and its metrics.

    What it prints goes to a terminal that can show only a part of it.
    """
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    data = os.path.join(folder, os.fsdecode(b"no UTF-8 \xff.txt"))
    shutil.copy(folder / "corpus.txt", data)
    with contextlib.redirect_stdout(out):
        assert main(to_arguments(make_config(folder, data=data))) == 0
    run = folder / "runs" / "tiny"
    (folder / "out.txt").write_bytes(out.buffer.getvalue())
    return run, json.loads((run / "metrics.json").read_text())


def fit(config):
    """Trains only; returns the run's folder and the steps done."""
    folder = RunFolder(os.path.join(config.output, config.name))
    _, progress = train.fit_model(config, train.read_data(config), folder)
    return Path(folder.path), progress.step


def read_arrays(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def step_of(path):
    return json.loads(str(read_arrays(path)["about"]))["step"]


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_same_end(run, other):
    """The same variables, bit by bit, and the same rows up to the clock."""
    ours = read_arrays(run / "checkpoint.npz")
    theirs = read_arrays(other / "checkpoint.npz")
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"about"}:
        np.testing.assert_array_equal(ours[name], theirs[name])
    steps = [row["step"] for row in read_rows(run / "log.csv")]
    assert steps == sorted(set(steps), key=int)


def test_files_of_a_run(finished):
    run, metrics = finished
    for name in ("training.png", "attention.png"):
        content = (run / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    assert (run / "sample.txt").stat().st_size > 8
    assert not list(run.glob("*tmp*"))
    assert step_of(run / "checkpoint-previous.npz") == 10


def test_what_is_printed(folder, finished):
    run, _ = finished
    out = (folder / "out.txt").read_text()
    assert "no UTF-8 ?.txt, 40,000 bytes" in out
    assert "??\n" in out.partition("--- prompt ---")[2]
    assert "ü你" in (run / "sample.txt").read_text(encoding="utf-8")
    starts = [
        "corpus: ",
        "model: ",
        "Epoch 1/3",
        "validation text",
        "--- prompt ---",
        "picture: ",
        "model file: ",
        "exported: ",
        "proved: ",
        "metrics: ",
    ]
    places = [out.index(f"\n{start}") for start in starts[1:]]
    assert out.startswith(starts[0])
    assert places == sorted(places)


def test_what_was_trained_is_written_before_it_is_printed(
    folder, finished, monkeypatch, capsys
):
    run = folder / "runs" / "unread"
    shutil.copytree(finished[0], run)
    before = (run / "model.keras").read_bytes()
    (run / "model.keras").unlink()

    def fail(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr(train, "measure", fail)
    config = make_config(folder, name="unread", resume=True)
    assert main(to_arguments(config)) == 141
    assert capsys.readouterr().err == ""
    assert len((run / "model.keras").read_bytes()) == len(before)


def test_metrics(finished):
    _, metrics = finished
    validation = metrics["validation"]
    assert metrics["steps"] == 12
    assert 0 < validation["bits_per_byte"] < 8.5
    assert validation["lsh_gain"] == pytest.approx(
        validation["bits_per_byte_without_lsh"] - validation["bits_per_byte"]
    )
    assert validation["lsh_gain"] != 0
    assert set(metrics["yardsticks"]) == {"order0", "bigram", "zlib"}
    assert metrics["yardsticks"]["bigram"] < metrics["yardsticks"]["order0"]
    assert metrics["export"]["max_abs_difference"] < 1e-4


def test_log_has_a_row_an_epoch(finished):
    run, _ = finished
    rows = read_rows(run / "log.csv")
    assert [row["step"] for row in rows] == ["5", "10", "12"]
    assert [row["averaged_steps"] for row in rows] == ["5", "5", "2"]
    assert float(rows[2]["bits_per_byte"]) < float(rows[0]["bits_per_byte"])
    assert all(row["val_bits_per_byte"] for row in rows)


def test_saved_model_file_is_the_trained_model(folder, finished):
    run, metrics = finished
    model = keras.saving.load_model(run / "model.keras", compile=False)
    config = make_config(folder)
    training.compile_model(model, config)
    windows = train.validation_windows(config, train.read_data(config), 64)
    result = model.evaluate(windows, verbose=0, return_dict=True)
    assert result["bits_per_byte"] == pytest.approx(
        metrics["validation"]["bits_per_byte"], rel=1e-5
    )


def test_resume_after_kill_is_bit_equal(folder, finished):
    config = make_config(folder, name="killed")
    run = folder / "runs" / "killed"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_reformer.cli", *to_arguments(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    while not (run / "checkpoint.npz").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < step_of(run / "checkpoint.npz") < config.steps

    fit(make_config(folder, name="killed", resume=True))
    assert_same_end(run, finished[0])


class Poison(keras.callbacks.Callback):
    """Makes weights NaN before the third epoch, of 5 steps each."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            variable = self.model.trainable_variables[0]
            variable.assign(np.full(variable.shape, np.nan))


@pytest.fixture(scope="module")
def poisoned(folder):
    """The folder of a run that meets a NaN at step 11, and its complaint."""
    config = make_config(folder, name="poisoned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_optional_callbacks", lambda *_: [Poison()])
        with pytest.raises(ValueError, match="Training has stopped") as caught:
            fit(config)
    return folder / "runs" / "poisoned", str(caught.value)


def test_nan_keeps_the_last_good_checkpoint_and_its_model(poisoned):
    run, complaint = poisoned
    assert "loss is nan after step 11" in complaint
    assert "the checkpoint of step 10 and its model" in complaint
    assert step_of(run / "checkpoint.npz") == 10
    model = keras.saving.load_model(run / "model.keras", compile=False)
    arrays = read_arrays(run / "checkpoint.npz")
    for number, variable in enumerate(model.variables):
        np.testing.assert_array_equal(variable, arrays[f"{number:05d}"])


@pytest.mark.slow
def test_resume_after_an_epoch_is_bit_equal(folder, finished, poisoned):
    run = folder / "runs" / "stopped"
    shutil.copytree(poisoned[0], run)
    # As if killed between a row and its checkpoint.
    later = {**dict.fromkeys(callbacks.LOG_FIELDS, 1), "step": 12}
    callbacks.append_log(run / "log.csv", later)
    assert fit(make_config(folder, name="stopped", resume=True)) == (run, 12)
    assert_same_end(run, finished[0])


@pytest.mark.slow
def test_resume_from_the_checkpoint_before(folder, finished, poisoned, capsys):
    run = folder / "runs" / "damaged"
    shutil.copytree(poisoned[0], run)
    checkpoint = run / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    assert fit(make_config(folder, name="damaged", resume=True)) == (run, 12)
    out = capsys.readouterr().out
    assert "checkpoint.npz is missing or damaged: taking the one before" in out
    assert "at step 9\n" in out
    assert_same_end(run, finished[0])


def test_a_damaged_checkpoint_is_not_kept_as_the_one_before(folder, poisoned):
    path = folder / "runs" / "replaced"
    shutil.copytree(poisoned[0], path)
    (path / "checkpoint.npz").write_bytes(b"")
    run = RunFolder(str(path))
    config = make_config(folder, name="replaced", resume=True)
    checkpoint = train.find_checkpoint(config, train.read_data(config), run)
    train.prepare_folder(config, run, checkpoint)
    assert step_of(path / "checkpoint.npz") == 9
    assert not (path / "checkpoint-previous.npz").exists()


def test_time_limit_leaves_a_checkpoint(folder):
    run, done = fit(make_config(folder, name="limited", time_limit=1e-9))
    assert done == step_of(run / "checkpoint.npz") == 1


@pytest.mark.slow
def test_a_run_resumes_after_its_time_limit(folder, finished):
    run, _ = fit(make_config(folder, name="later", time_limit=1e-9))
    assert fit(make_config(folder, name="later", resume=True)) == (run, 12)
    assert_same_end(run, finished[0])


def test_resume_of_a_finished_run_trains_no_further(folder, finished):
    run, _ = finished
    before = (run / "checkpoint.npz").read_bytes()
    assert fit(make_config(folder, resume=True)) == (run, 12)
    assert (run / "checkpoint.npz").read_bytes() == before


def test_existing_run_is_not_overwritten(folder, finished):
    run, _ = finished
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ValueError, match="--resume.*--overwrite.*--name"):
        train.run(make_config(folder))
    assert {path: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    "settings", [{"hidden_dim": 32}, {"seed": 1}, {"learning_rate": 1e-3}]
)
def test_checkpoint_of_another_configuration(folder, finished, settings):
    run, _ = finished
    before = {path: path.read_bytes() for path in run.iterdir()}
    (name,) = settings
    with pytest.raises(ValueError, match=f"Differing: {name}="):
        train.run(make_config(folder, resume=True, **settings))
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_checkpoint_of_another_corpus(folder, finished):
    other = folder / "other.txt"
    other.write_bytes(Path(folder, "corpus.txt").read_bytes() + b"\n")
    with pytest.raises(ValueError, match="Differing: data="):
        train.run(make_config(folder, resume=True, data=str(other)))


def test_overwrite_clears_a_run_and_keeps_foreign_files(folder, finished):
    path = shutil.copytree(finished[0], folder / "runs" / "again")
    (path / "notes.txt").write_text("mine")
    config = make_config(folder, name="again", overwrite=True, steps=4)
    run = RunFolder(str(path))
    checkpoint = train.find_checkpoint(config, train.read_data(config), run)
    assert checkpoint is None
    train.prepare_folder(config, run, checkpoint)
    assert [file.name for file in path.iterdir()] == ["notes.txt"]
