"""TensorFlow's checkpoints and Keras's callbacks that save a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.tiny import SMALLEST, make_ids, make_model

IDS = make_ids()


def weights_of(model):
    """Values, without the states of seed generators.

    TensorFlow does not see those, in Keras's own layers neither.
    """
    variables = [*model.variables, *model.optimizer.variables]
    return [v.numpy() for v in variables if v.name != "seed_generator_state"]


def seeds_of(model):
    variables = [v for v in model.variables if v.name == "seed_generator_state"]
    return [v.numpy().tolist() for v in variables]


def make_compiled(seed, **options):
    model = make_model(seed=seed, **options)
    model.compile("adam", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * seed * np.ones(variable.shape))
    return model


def assert_equal(one, other):
    for found, expected in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_tensorflow_checkpoints_hold_all_weights(tmp_path):
    model, other = make_compiled(1), make_compiled(2)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "one"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_equal(other, model)
    assert seeds_of(other) != seeds_of(model)


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_backups_and_checkpoints_of_keras(tmp_path):
    model = make_compiled(1, **SMALLEST)
    file = str(tmp_path / "model.weights.h5")
    whole = str(tmp_path / "model.keras")

    def savers():
        # Each backs up to its folder, and removes it where training ends.
        return [
            keras.callbacks.BackupAndRestore(str(tmp_path / "backup")),
            keras.callbacks.ModelCheckpoint(file, save_weights_only=True),
            keras.callbacks.ModelCheckpoint(whole),
        ]

    options = {"epochs": 2, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        model.fit(IDS, **options, callbacks=[*savers(), Kill()])
    other, loaded = (make_compiled(seed, **SMALLEST) for seed in (2, 3))
    loaded.load_weights(file)
    assert_equal(loaded, model)
    assert_equal(keras.models.load_model(whole), model)
    history = other.fit(IDS, **options, callbacks=savers())
    assert history.epoch == [1]
    model.fit(IDS, initial_epoch=1, **options)
    assert_equal(other, model)
