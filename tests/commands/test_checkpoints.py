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


def save(path, model):
    checkpoints.save_checkpoint(
        path, model, step=3, seconds=1.5, fingerprint=FINGERPRINT
    )


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
