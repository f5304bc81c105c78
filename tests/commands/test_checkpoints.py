import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_reformer.commands import checkpoints

FINGERPRINT = {"length": 64, "attention": ["local", "lsh"]}


def make_model(units=3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(units),
        ]
    )
    model.compile(keras.optimizers.AdamW(1e-2), "mse")
    return model


def fit(model, steps):
    inputs = np.ones((4, 2), "float32")
    targets = np.zeros((4, model.output_shape[-1]), "float32")
    for _ in range(steps):
        model.train_on_batch(inputs, targets)


def save(path, model, step=3):
    checkpoints.save_checkpoint(
        path, model, step=step, seconds=1.5, fingerprint=FINGERPRINT
    )


class Killed(BaseException):
    """Ends a test's process, as it were: nothing happens to files after it."""


def kill_after(patch, count):
    """Lets `count` operations on files happen; the next only by half."""
    operations = iter(range(count))

    def limited(operation):
        def run(*args, **kwargs):
            if next(operations, None) is None:
                raise Killed
            return operation(*args, **kwargs)

        return run

    def savez(file, **arrays):
        if next(operations, None) is None:
            file.write(b"PK half a file")
            raise Killed
        np_savez(file, **arrays)

    np_savez = np.savez
    patch.setattr(np, "savez", savez)
    for name in ("fsync", "replace", "remove"):
        patch.setattr(os, name, limited(getattr(os, name)))


@pytest.mark.parametrize("before", [1, 2])
def test_a_kill_at_any_operation_leaves_a_whole_checkpoint(
    tmp_path, monkeypatch, before
):
    path = str(tmp_path / "checkpoint.npz")
    model = make_model()
    for step in range(1, before + 1):
        save(path, model, step)
    seen = []
    for count in range(20):
        with monkeypatch.context() as patch:
            kill_after(patch, count)
            try:
                save(path, model, seen[-1] + 1 if seen else before + 1)
                finished = True
            except Killed:
                finished = False
        checkpoint = checkpoints.load_latest(path, FINGERPRINT)
        restored = make_model()
        checkpoints.restore(restored, checkpoint)
        seen.append(checkpoint.step)
        if finished:
            break
    # Written, synced, the one before moved, renamed, the folder synced: a
    # kill before each of the five, or none. (Once the first is missing, there
    # is nothing to move.)
    assert finished
    assert count in (4, 5)
    assert seen[0] == before
    assert seen == sorted(seen)
    assert seen[-1] > before


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    assert checkpoints.load_latest(path, FINGERPRINT) is None
    for step in (1, 2, 3):
        save(path, make_model(), step)
    whole = Path(path).read_bytes()
    assert checkpoints.load_latest(path, FINGERPRINT).step == 3
    for content in (whole[:-100], whole[:50], b"", b"\0" * len(whole), None):
        if content is None:
            os.remove(path)
        else:
            Path(path).write_bytes(content)
        checkpoint = checkpoints.load_latest(path, FINGERPRINT)
        assert checkpoint.step == 2
        assert checkpoint.path == checkpoints.previous_path(path)
    Path(path).write_bytes(b"")
    Path(checkpoint.path).write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint.npz` is not a readable"):
        checkpoints.load_latest(path, FINGERPRINT)


def test_no_damage_goes_unseen(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    save(path, make_model())
    whole = Path(path).read_bytes()
    expected = checkpoints.load_checkpoint(path, FINGERPRINT)
    rng = np.random.default_rng(0)
    damaged = [whole[:size] for size in rng.integers(0, len(whole), 60)]
    for place, bit in zip(
        rng.integers(0, len(whole), 400), rng.integers(0, 8, 400), strict=True
    ):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        damaged.append(content)
    refused = 0
    for content in damaged:
        Path(path).write_bytes(content)
        try:
            found = checkpoints.load_checkpoint(path, FINGERPRINT)
        except checkpoints.UnreadableCheckpoint:
            refused += 1
            continue
        # Times and such in a zip file, which nobody reads.
        assert found.step == expected.step
        for ours, theirs in zip(found.values, expected.values, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert refused > 200


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_replace_nothing(tmp_path, value):
    path = str(tmp_path / "checkpoint.npz")
    model = make_model()
    save(path, model)
    bias = model.layers[-1].bias
    bias.assign([0.0, value, 0.0])
    with pytest.raises(checkpoints.NotFinite, match="after step 4"):
        save(path, model, 4)
    assert checkpoints.load_checkpoint(path, FINGERPRINT).step == 3
    assert os.listdir(tmp_path) == ["checkpoint.npz"]


def test_checkpoint_keeps_seed_states_and_optimizer(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    model = make_model()
    fit(model, 3)
    save(path, model)
    fit(model, 3)

    other = make_model()
    checkpoint = checkpoints.load_checkpoint(path, FINGERPRINT)
    assert (checkpoint.step, checkpoint.seconds) == (3, 1.5)
    checkpoints.restore(other, checkpoint)
    fit(other, 3)
    assert int(other.optimizer.iterations) == 6
    for ours, theirs in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_failing_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = str(tmp_path / "checkpoint.npz")
    model = make_model()
    save(path, model)

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space"):
        save(path, model)
    assert os.listdir(tmp_path) == ["checkpoint.npz"]
    assert checkpoints.load_checkpoint(path, FINGERPRINT).step == 3


def test_differing_settings_are_named(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    save(path, make_model())
    with pytest.raises(ValueError, match=r"length=32 \(checkpoint: 64\)"):
        checkpoints.load_checkpoint(path, {**FINGERPRINT, "length": 32})


def test_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoints.load_checkpoint(str(path), FINGERPRINT)


def test_variables_of_another_model(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    save(path, make_model())
    checkpoint = checkpoints.load_checkpoint(path, FINGERPRINT)
    with pytest.raises(ValueError, match="other variables"):
        checkpoints.restore(make_model(units=4), checkpoint)
