import sys

import numpy as np
import pytest

from keras_reformer import visualize
from tests.support.pictures import assert_shows_something, read_pixels

LENGTH = 53
ROWS = [17, 52]
TEXT = b"import os\n\n\ndef f(x):\n    return $x_1$ + {y} % \\z\xff\n"[:LENGTH]
TEXT = TEXT.ljust(LENGTH, b"#")


def make_statistics(num_rounds=2):
    generator = np.random.default_rng(0)
    weights = np.zeros((1, 3, len(ROWS), LENGTH))
    for number, row in enumerate(ROWS):
        weights[..., number, :row] = generator.dirichlet(np.ones(row), (1, 3))
    buckets = generator.integers(0, 6, (1, 3, num_rounds, LENGTH))
    return {"buckets": buckets, "weights": weights}


def make_rows(count=4):
    return [
        {
            "step": 10 * number,
            "bits_per_byte": 8 / number,
            "val_bits_per_byte": None if number == 2 else 9 / number,
            "learning_rate": 1e-3,
        }
        for number in range(1, count + 1)
    ]


def test_plot_training(tmp_path):
    path = tmp_path / "training.png"
    visualize.plot_training(make_rows(), path, references={"zlib": 2.1})
    assert_shows_something(path)


def test_plot_training_reads_a_log(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("step,bits_per_byte,val_bits_per_byte\n5,4.5,\n10,3.5,4\n")
    visualize.plot_training(log, tmp_path / "training.png")
    assert_shows_something(tmp_path / "training.png")


def test_plot_training_shows_the_curve(tmp_path):
    visualize.plot_training(make_rows(), tmp_path / "a.png")
    visualize.plot_training(make_rows(3), tmp_path / "b.png")
    first = read_pixels(tmp_path / "a.png")
    assert np.any(first != read_pixels(tmp_path / "b.png"))


def test_plot_training_without_rows(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        visualize.plot_training([], tmp_path / "training.png")


@pytest.mark.covering(1)
@pytest.mark.parametrize("text", [None, TEXT])
@pytest.mark.parametrize("num_rounds", [1, 3])
def test_plot_lsh(tmp_path, text, num_rounds):
    path = tmp_path / "attention.png"
    statistics = make_statistics(num_rounds)
    visualize.plot_lsh(statistics, path, rows=ROWS, text=text, head=2, layer=1)
    assert_shows_something(path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rows": [1]}, "`weights` must have"),
        ({"rows": [1, LENGTH]}, "`rows` must be positions"),
        ({"rows": ROWS, "text": b"short"}, "`text` must have"),
    ],
)
def test_plot_lsh_rejects_misfits(tmp_path, arguments, message):
    path = tmp_path / "attention.png"
    with pytest.raises(ValueError, match=message):
        visualize.plot_lsh(make_statistics(), path, **arguments)
    assert not path.exists()


def test_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"keras-reformer\[plot\]"):
        visualize.plot_training(make_rows(), tmp_path / "training.png")
