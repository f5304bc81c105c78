import argparse
from pathlib import Path

import batches
import enwik8
import numpy as np
import runs


def options(tmp_path):
    (tmp_path / "text").write_bytes(bytes(range(250)) * 4)
    defaults = {name: value for name, (value, _) in enwik8.OPTIONS.items()}
    changes = {"data": Path(tmp_path / "text"), "length": 10, "batch_size": 3}
    return argparse.Namespace(**{**defaults, **changes})


def test_windows_are_bytes_and_their_successors(tmp_path):
    text = enwik8.read(options(tmp_path))
    tokens, labels = batches.windows(text.train, [0, 7], 10)
    np.testing.assert_array_equal(tokens[1], np.arange(7, 17) + 2)
    np.testing.assert_array_equal(labels, tokens + 1)


def test_windows_of_a_test_do_not_overlap():
    text = np.arange(31, dtype="uint8")
    tokens, _ = enwik8.first_windows(text, 10, 0)
    np.testing.assert_array_equal(tokens.ravel(), np.arange(30) + 2)
    assert len(enwik8.first_windows(text[:30], 10, 0)[0]) == 2
    assert len(enwik8.first_windows(text, 10, 1)[0]) == 1


def test_batches_follow_from_seed_and_step(tmp_path):
    given = options(tmp_path)
    text = enwik8.read(given)
    one, two = (enwik8.stage(given, text, seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.batch(5), one.batch(5))
    assert (np.array(one.batch(5)) != np.array(one.batch(6))).any()
    assert (np.array(one.batch(5)) != np.array(two.batch(5))).any()
    assert one.batch(5)[0].shape == (3, 10)


def test_the_report_compares_plain_runs_and_seeds(tmp_path):
    given = argparse.Namespace(folder=tmp_path, kinds=("lsh", "lsh-plain"))
    values = {"lsh-0": 2.0, "lsh-1": 2.5, "lsh-plain-0": 2.25, "exact-0": 1.0}
    for name, last in values.items():
        (tmp_path / name).mkdir()
        rows = [
            {"step": 10, "val_bits_per_byte": 4.0},
            {"step": 20, "val_bits_per_byte": last},
        ]
        runs.write_rows(tmp_path / name / "curve.csv", rows)
    _, _, rows = enwik8.distance_table(given)
    assert rows == [
        ["lsh, seed 0", "lsh, seed 1", "0.5", "0.5"],
        ["lsh, seed 0", "lsh-plain, seed 0", "0.25", "0.25"],
    ]
