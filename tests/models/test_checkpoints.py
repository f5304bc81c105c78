"""TensorFlow's checkpoints and Keras's callbacks that save a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import Dropout
from tests.support.tiny import SMALLEST, make_ids, make_model

IDS = make_ids()


def state_of(model):
    """Values of weights, seeds and the optimizer."""
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def make_compiled(seed, **options):
    model = make_model(seed=seed, **options)
    model.compile("adam", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * seed * np.ones(variable.shape))
    return model


def assert_equal(one, other):
    for found, expected in zip(state_of(one), state_of(other), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_tensorflow_checkpoints_hold_all(tmp_path):
    model, other = (make_compiled(n, dropout=0.1) for n in (1, 2))
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "one"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_equal(other, model)


def test_saved_by_tensorflow_itself(tmp_path):
    model = make_model(**SMALLEST, dropout=0.1)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(model, str(tmp_path), options=options)
    loaded = tf.saved_model.load(str(tmp_path))
    serve = loaded.signatures["serving_default"]
    # The inputs' names are Keras's, the order of a dict.
    mask = tf.ones_like(IDS, tf.bool)
    (found,) = serve(inputs=mask, inputs_1=tf.constant(IDS)).values()
    np.testing.assert_allclose(found, model(IDS), atol=1e-5)


def test_a_layer_made_while_shapes_are_inferred_keeps_no_graph():
    class Late(keras.layers.Layer):
        def build(self, shape):
            self.drop = Dropout(0.5)

        def call(self, x):
            return self.drop(x)

    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.late = Late()

        def call(self, x):
            return self.late(x)

    layer = Outer()
    layer(np.ones((4, 8), "float32"))
    kept = vars(layer.late.drop).values()
    assert not any(tf.is_symbolic_tensor(value) for value in kept)


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
