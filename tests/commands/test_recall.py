import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from keras_reformer import visualize
from keras_reformer.cli import main
from keras_reformer.commands import recall, report
from keras_reformer.commands.config import RecallConfig
from tests.support.pictures import assert_shows_something

TINY = {
    "name": "tiny",
    "steps": 3,
    "length": 24,
    "pairs": 3,
    "vocabulary": 10,
    "batch_size": 4,
    "heads": 1,
    "hidden_dim": 16,
    "intermediate_dim": 16,
    "chunk_length": 8,
    "steps_per_epoch": 2,
    "test_sequences": 9,
    "jit": False,
}


@pytest.fixture(scope="module", autouse=True)
def without_graphs():
    """Tracing would take longer than these few steps."""
    build_model = recall.build_model

    def build(config, kind):
        model = build_model(config, kind)
        model.run_eagerly = True
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "build_model", build)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recall")


@pytest.fixture(scope="module")
def config(folder):
    return RecallConfig(**TINY, output=str(folder))


@pytest.fixture(scope="module")
def finished(folder, config):
    """The folder of a run and what it returned."""
    metrics = recall.run(config)
    return folder / "tiny", metrics


def test_files_of_a_run(finished):
    run, metrics = finished
    assert json.loads((run / "metrics.json").read_text()) == metrics
    assert_shows_something(run / "recall.png")
    assert {path.name for path in run.iterdir()} == {
        "log.csv",
        "metrics.json",
        "recall.png",
    }
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["attention"], row["step"]) for row in rows] == [
        (kind, step) for kind in recall.KINDS for step in ("2", "3")
    ]
    assert all(float(row["loss"]) > 0 for row in rows)


def test_metrics(finished):
    _, metrics = finished
    assert metrics["queries"] == 9 * 3
    assert list(metrics["guessing"].values()) == [
        0.2,
        pytest.approx(1 / 3 + 2 / 3 * 0.2),
    ]
    bins = metrics["by_distance"]
    assert sum(row["queries"] for row in bins) == 27
    for kind in recall.KINDS:
        mean = sum(row["queries"] * row["accuracy"][kind] for row in bins) / 27
        assert metrics["accuracy"][kind] == pytest.approx(mean)


def test_models_differ_in_one_layer(config):
    lsh, exact, local = (recall.build_model(config, k) for k in recall.KINDS)
    (lsh_layer,) = lsh.backbone.lsh_layers().values()
    (exact_layer,) = exact.backbone.lsh_layers().values()
    assert (lsh_layer.exact_below, exact_layer.exact_below) == (None, 24)
    assert not local.backbone.lsh_layers()
    for one, two in zip(lsh.weights, exact.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_earlier_run_is_kept(finished, config):
    before = (finished[0] / "log.csv").read_bytes()
    with pytest.raises(ValueError, match="exists. Replace it by --overwrite"):
        recall.run(config)
    assert (finished[0] / "log.csv").read_bytes() == before


def test_batches_of_training_and_tests_are_fresh(config):
    batches = [
        *(batch[0] for batch in recall.TrainingBatches(config, 0, 2)),
        *(batch[0] for batch in recall.TrainingBatches(config, 2, 1)),
        recall.draw_batch(config, 1, 0, 4)[0],
        recall.draw_batch(config, 2, 0, 4)[0],
    ]
    assert len({batch.tobytes() for batch in batches}) == 5


def test_values_and_answers_are_found(config):
    class Oracle:
        def predict(self, tokens, **kwargs):
            return np.eye(11)[labels]

    tokens, labels, weights = recall.draw_batch(config, 1, 0, 5)
    for row in range(5):
        queries, values = recall.find_values(tokens[row], weights[row])
        assert list(tokens[row, values]) == list(labels[row, queries])
        assert list(tokens[row, values - 1]) == list(tokens[row, queries])
    batch = tokens, np.where(labels == labels.max(), 1, labels), weights
    correct = recall.answers(Oracle(), batch, 5)
    assert list(correct) == list(labels[weights > 0] != labels.max())


def test_bins_hold_every_distance_once():
    for length in (9, 24, 128, 131):
        bins = recall.distance_bins(RecallConfig(length=length))
        distances = [d for a, b in bins for d in range(a, b + 1)]
        assert distances == list(range(1, length - 1))
        assert len(bins) <= 8


def test_loss_that_is_not_finite_ends_the_run(folder, config):
    config = dataclasses.replace(
        config, name="diverged", learning_rate=float("inf")
    )
    with pytest.raises(ValueError, match="the loss is not finite"):
        recall.run(config)
    assert not (folder / "diverged" / "metrics.json").exists()


def test_statistics_of_chosen_rows(config):
    model = recall.build_model(config, "lsh")
    tokens, _, weights = recall.draw_batch(config, 2, 0, 1)
    queries, _ = recall.find_values(tokens[0], weights[0])
    _, rows, found = report.lsh_statistics(model, tokens, queries.tolist())
    assert rows == queries.tolist()
    assert found["weights"].shape == (1, 1, 3, 24)
    np.testing.assert_allclose(found["weights"].sum(-1), 1, rtol=1e-5)


def test_picture_refuses_weights_of_other_queries(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 5\).*weights.shape=\(1, 5\)"):
        visualize.plot_recall(
            {},
            np.ones((1, 3, 1, 5)),
            tmp_path / "recall.png",
            tokens=np.arange(5),
            queries=[3, 4],
            values=[1, 2],
            reach=3,
        )


def test_without_matplotlib_the_numbers_stay(
    config, finished, monkeypatch, capsys
):
    def fail(*args, **kwargs):
        raise ImportError("Pictures need matplotlib.")

    monkeypatch.setattr(visualize, "plot_recall", fail)
    model = recall.build_model(config, "lsh")
    folder = recall.RunFolder(str(finished[0]))
    recall.draw(model, config, finished[1], folder)
    assert "no picture: Pictures need matplotlib." in capsys.readouterr().out


def test_options_become_the_configuration(monkeypatch):
    found = []
    monkeypatch.setattr(recall, "run", found.append)
    options = "--steps 7 --seed 3 --output a --name b --overwrite"
    assert main(["demo", "recall", *options.split()]) == 0
    assert main(["demo", "recall"]) == 0
    assert found == [
        RecallConfig(steps=7, seed=3, output="a", name="b", overwrite=True),
        RecallConfig(),
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        (["recall", "--steps", "0"], "`steps` must be greater than 0"),
        (["recall", "--steps", "many"], "invalid int value: 'many'"),
        (["recall", "--seed", "-1"], "`seed` must be"),
        (["recall", "--name", "../elsewhere"], "`name` must start with"),
        (["recall", "--output", "taken"], "taken"),
        (["recall", "--typo"], "unrecognized arguments: --typo"),
        (["recal"], "invalid choice: 'recal'"),
        ([], "arguments are required: DEMO"),
    ],
)
def test_bad_input_is_one_line(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("mine")
    assert main(["demo", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-reformer: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_interrupt_promises_no_resumption(monkeypatch, capsys):
    def interrupt(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(recall, "run", interrupt)
    assert main(["demo", "recall"]) == 130
    assert capsys.readouterr().err == "keras-reformer: interrupted\n"
