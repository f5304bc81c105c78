import argparse

import batches
import keras
import numpy as np
import pytest
import reports
import runs


def options(folder, **changes):
    found = argparse.Namespace(
        learning_rate=0.1,
        warmup=0.1,
        weight_decay=0.01,
        clip=1.0,
        evaluate_every=3,
        folder=folder,
        kinds=("dense",),
        picture=folder / "learning.png",
        markdown=None,
        export=False,
    )
    return argparse.Namespace(**{**vars(found), **changes})


class Killed(Exception):
    pass


def run(given, kill_at=None, seed=0, asked=None):
    """Trains a model with dropout for 7 and then 4 steps; its weights.

    The numbers of the batches go to the list `asked`.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    runs.compile_model(model, 11, given, loss="mse", jit_compile=False)

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(model.optimizer.iterations) == kill_at:
                raise Killed

    fit = model.fit
    model.fit = lambda *args, **kwargs: fit(*args, callbacks=[Kill()], **kwargs)

    def batch(index):
        if asked is not None and index not in asked:
            asked.append(index)
        rng = batches.random(seed, batches.TRAINING, index)
        return rng.normal(size=(4, 5)), rng.normal(size=(4, 1))

    def stage(steps):
        return runs.Stage(steps, batch, lambda: batch(99), 4, {"size": steps})

    assert runs.train(model, [stage(7), stage(4)], given, "dense", seed)
    return model.get_weights()


def without_seconds(path):
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in runs.read_rows(path / "dense-0" / "curve.csv")
    ]


@pytest.mark.parametrize(
    "kill_at", [pytest.param(n, marks=pytest.mark.slow) for n in (2, 5, 8)]
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, kill_at):
    whole = run(options(tmp_path / "whole"))
    given = options(tmp_path / "killed")
    with pytest.raises(Killed):
        run(given, kill_at)
    for one, two in zip(whole, run(given), strict=True):
        np.testing.assert_array_equal(one, two)
    rows = without_seconds(tmp_path / "killed")
    assert rows == without_seconds(tmp_path / "whole")
    assert [row["step"] for row in rows] == [3, 6, 7, 10, 11]
    assert [row["size"] for row in rows] == [7, 7, 7, 4, 4]


@pytest.mark.slow
def test_a_batch_is_that_of_the_step(tmp_path):
    asked = []
    run(options(tmp_path), asked=asked)
    assert sorted(asked) == [*range(11), 99]
    dataset = runs.dataset(lambda index: (np.full(2, index),), 5, 3)
    assert [int(x[0]) for (x,) in dataset] == [5, 6, 7]


@pytest.mark.slow
def test_a_row_without_its_checkpoint_is_written_again(tmp_path, monkeypatch):
    save = runs.checkpoints.save_checkpoint

    def save_once(*args, step, **kwargs):
        if step > 3:
            raise Killed
        save(*args, step=step, **kwargs)

    given = options(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(runs.checkpoints, "save_checkpoint", save_once)
        run(given)
    assert [row["step"] for row in without_seconds(tmp_path)] == [3, 6]
    run(given)
    rows = without_seconds(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 7, 10, 11]


def test_a_finished_run_is_read(tmp_path):
    given = options(tmp_path)
    first = run(given)
    path = tmp_path / "dense-0" / "curve.csv"
    before = path.read_text()
    for one, two in zip(first, run(given, kill_at=1), strict=True):
        np.testing.assert_array_equal(one, two)
    assert path.read_text() == before


def test_another_setting_is_refused(tmp_path):
    run(options(tmp_path))
    with pytest.raises(ValueError, match="learning_rate=0.2"):
        run(options(tmp_path, learning_rate=0.2))


def test_a_run_that_diverges_ends_and_the_next_begins(tmp_path, capsys):
    given = options(tmp_path, learning_rate=float("nan"))
    with pytest.raises(AssertionError):
        run(given)
    assert "diverged" in capsys.readouterr().out


def test_evaluations_are_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"accuracy": 0.5}

    for rounds in (1, 2, 1):
        row = runs.evaluate(tmp_path, {"rounds": rounds}, compute)
        assert row == {"rounds": rounds, "accuracy": 0.5}
    assert len(calls) == 2


def test_evaluations_of_two_sorts_have_tables_of_their_own(tmp_path):
    folder = tmp_path / "lsh-0"
    folder.mkdir()
    for rounds in (4, 1):
        runs.evaluate(folder, {"rounds": rounds}, lambda: {"accuracy": 0.5})
    runs.evaluate(folder, {"generated": 9}, lambda: {"copied": 3})
    given = options(tmp_path, kinds=("lsh",))
    for column, value, header, cells in (
        ("rounds", "accuracy", ["rounds 1", "rounds 4"], [0.5, 0.5]),
        ("generated", "copied", ["generated 9"], [3]),
    ):
        _, found, rows = reports.evaluation_table(
            given,
            "title",
            (),
            column,
            lambda row: row[value],  # noqa: B023
        )
        assert found == ["kind", "seed", *header]
        assert rows == [["lsh", 0, *cells]]


def test_reports_know_runs_by_kind_and_seed(tmp_path):
    for name, last in (("lsh-chunk-0", 0.95), ("lsh-2", 0.5), ("lsh-10", 1.0)):
        rows = [
            {"step": 10, "val_accuracy": 0.1},
            {"step": 20, "val_accuracy": last},
        ]
        (tmp_path / name).mkdir()
        runs.write_rows(tmp_path / name / "curve.csv", rows)
    given = options(tmp_path, kinds=("lsh", "lsh-chunk"))
    _, _, rows = reports.training_table(given)
    assert rows == [
        ["lsh", 2, 20, "-", "-", "0.5000"],
        ["lsh", 10, 20, 20, 20, "1.0000"],
        ["lsh-chunk", 0, 20, 20, "-", "0.9500"],
    ]
    reports.plot_curves(given, {"val_accuracy": "accuracy"}, "title")
    assert given.picture.stat().st_size > 1000


def test_texts_of_options_are_read():
    assert runs.words("lsh,exact") == ("lsh", "exact")
    assert runs.numbers("1,2") == (1, 2)
    assert runs.fields("64:4:600,256:16:400") == ((64, 4, 600), (256, 16, 400))
    assert runs.fields("") == ()
