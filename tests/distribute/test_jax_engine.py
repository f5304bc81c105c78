"""When weights are where, and what an engine refuses."""

import sys

import jax
import keras
import numpy as np
import pytest

from keras_reformer import models
from keras_reformer.distribute import (
    JaxEngine,
    jax_engine,
    lowering,
    programs,
    runner,
)
from keras_reformer.ops import tracing
from tests.support import engines, tiny

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = X[:, :3]


@pytest.fixture(scope="module")
def two():
    return JaxEngine()


def compiled(engine, model=None, **options):
    model = model or engines.dense_model()
    options = {"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **options}
    model.compile(engine=engine, **options)
    return model


def fit(model, **options):
    options = {"verbose": 0, "shuffle": False, "batch_size": 2, **options}
    return model.fit(X, Y, **options)


# === When variables have values ===


class Watches(keras.callbacks.Callback):
    """Keeps what a callback sees, and sets a weight once."""

    def __init__(self):
        super().__init__()
        self.seen, self.logs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.layers[-1].kernel.numpy())
        self.logs.append(logs)
        if batch == 1:
            bias = self.model.layers[-1].bias
            bias.assign(np.ones(bias.shape))


def test_callbacks_see_and_set_what_they_do_without_an_engine(two):
    found = []
    for engine in (None, two):
        watch = Watches()
        schedule = keras.callbacks.LearningRateScheduler(
            lambda n: 0.1 / (n + 1)
        )
        model = compiled(engine, metrics=["mae"])
        history = fit(
            model,
            epochs=2,
            callbacks=[watch, schedule],
            validation_data=(X, Y),
        )
        found.append((watch, history.history, engines.values(model)))
    (plain, *_), (ours, *_) = found
    np.testing.assert_allclose(ours.seen, plain.seen, atol=1e-6)
    assert [set(logs) for logs in ours.logs] == [set(x) for x in plain.logs]
    engines.assert_same(found[1][1:], found[0][1:])


def test_weights_come_back_when_they_are_needed_and_only_then(two, monkeypatch):
    moved = []
    plain_assign = keras.Variable.assign

    def assign(variable, value):
        moved.append(variable.name)
        return plain_assign(variable, value)

    model = compiled(two)
    fit(model)
    monkeypatch.setattr(keras.Variable, "assign", assign)
    fit(model, epochs=3)
    assert moved.count("kernel") == 3


class Changes(keras.callbacks.Callback):
    """Looks at weights after each epoch, and changes one after the first."""

    def on_epoch_end(self, epoch, logs=None):
        *_, dense = self.model.layers
        self.seen = dense.kernel.numpy()
        if epoch == 0:
            # In the place where they are, as some optimizers do.
            dense.bias.value.assign_add([1.0, 2.0, 3.0])


def test_devices_are_given_what_has_changed_and_only_that(two, monkeypatch):
    put = []
    plain_put = runner.devices.put_everywhere

    def put_everywhere(mesh, values):
        put.extend(x.path for x in jax.tree.leaves(values))
        return plain_put(mesh, values)

    monkeypatch.setattr(runner.devices, "put_everywhere", put_everywhere)
    found = []
    for engine in (None, two):
        model = compiled(engine, optimizer=keras.optimizers.Adam(0.1))
        options = {"epochs": 3, "validation_data": (X, Y)}
        history = fit(model, callbacks=[Changes()], **options)
        found.append((history.history, engines.values(model)))
    engines.assert_same(found[1], found[0])
    *_, dense = model.layers
    assert put.count(dense.bias.path) == 2
    assert put.count(dense.kernel.path) == 1
    assert [put.count(x.path) for x in model.optimizer.variables] == [1] * 6
    fit(model)
    assert put.count(dense.kernel.path) == 2


def test_checkpoints_at_steps_have_their_weights(two, tmp_path):
    saved = []
    for engine in (None, two):
        path = str(tmp_path / f"{engine is None}-{{batch}}.weights.h5")
        checkpoint = keras.callbacks.ModelCheckpoint(
            path, save_weights_only=True, save_freq=2
        )
        model = compiled(engine)
        fit(model, callbacks=[checkpoint])
        model.load_weights(path.format(batch=2))
        saved.append(engines.values(model))
    for a, b in zip(*saved, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_several_steps_an_execution_and_single_batches(two):
    found = []
    for engine in (None, two):
        model = compiled(engine, steps_per_execution=2)
        fit(model, epochs=2)
        losses = [
            model.train_on_batch(X, Y),
            model.test_on_batch(X[:5], Y[:5]),
            model.evaluate(X, Y, batch_size=4, verbose=0),
        ]
        outputs = [
            model.predict(X, batch_size=3, verbose=0),
            model.predict_on_batch(X[:1]),
        ]
        found.append([*losses, *outputs, *engines.values(model)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_running_means_are_those_of_all_devices(two):
    """Two devices of equal rows: the mean is that of one."""
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(momentum=0.5)(inputs)
    model = models.Model(inputs, keras.layers.Dense(3)(x))
    compiled(two, model)
    model.fit(X, Y, batch_size=6, verbose=0)
    mean = model.layers[1].moving_mean
    np.testing.assert_allclose(mean, X.mean(axis=0) / 2, atol=1e-6)


def test_frozen_weights_stay(two):
    model = engines.dense_model()
    model.layers[-1].bias.assign([0.1, 0.2, 0.3])
    model.layers[-1].bias.trainable = False
    compiled(two, model)
    # Parts of 2, 2 and 1 rows: their means would round.
    fit(model, epochs=2, batch_size=5)
    np.testing.assert_array_equal(
        model.layers[-1].bias, np.float32([0.1, 0.2, 0.3])
    )


def test_weights_after_an_error_are_those_of_the_steps_before(two):
    class Fails(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    found = []
    for engine in (None, two):
        model = compiled(engine)
        with pytest.raises(KeyboardInterrupt):
            fit(model, callbacks=[Fails()])
        found.append(engines.values(model))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_step_that_fails_on_the_devices_keeps_what_was_brought_back(
    two, monkeypatch
):
    def train(programs, state, batch):
        def fail(state, batch):
            for array in jax.tree.leaves(state):
                array.delete()
            raise RuntimeError("out of memory")

        return fail

    model = compiled(two)
    fit(model)
    before = engines.values(model)
    monkeypatch.setattr(programs.Programs, "train", train)
    model.make_train_function(force=True)
    with pytest.raises(RuntimeError) as error:
        fit(model)
    assert "lost the weights" in error.value.__notes__[0]
    for a, b in zip(engines.values(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_several_outputs_have_their_own_losses(two):
    """A batch that does not divide. (With a shorter one after it, Keras's
    means of the outputs' losses are those of batches, not of rows.)"""
    found = []
    for engine in (None, two):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((4,))
        outputs = {
            name: keras.layers.Dense(3, name=name)(inputs) for name in "ab"
        }
        model = compiled(
            engine,
            models.Model(inputs, outputs),
            loss={"a": "mse", "b": keras.losses.Huber(reduction="sum")},
            loss_weights={"a": 1.0, "b": 0.5},
            metrics={"a": ["mae"]},
        )
        weights = np.linspace(0, 1, 5, dtype="float32")
        history = model.fit(
            X[:5],
            {"a": Y[:5], "b": 2 * Y[:5]},
            sample_weight={"a": weights, "b": 1 - weights},
            batch_size=5,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        found.append((history.history, engines.values(model)))
    assert {"loss", "a_loss", "b_loss", "a_mae"} <= set(found[0][0])
    engines.assert_same(found[1], found[0])


def test_steps_are_traced_for_the_devices_they_run_on():
    def asks(x):
        seen.append(tracing.platform())
        return x

    seen = []
    shape = jax.ShapeDtypeStruct((2,), "float32")
    call, result = lowering.lower(asks, (shape,), "tpu")
    assert set(seen) == {"tpu"}
    assert result == shape
    np.testing.assert_array_equal(jax.jit(call)(np.ones(2, "float32")), 1.0)


# === Files ===


def test_saved_models_have_the_plain_loss(two, tmp_path):
    model = compiled(two, metrics=["mae"])
    fit(model)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, models.Model)
    expected = model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(
        loaded.evaluate(X, Y, verbose=0), expected, rtol=1e-6
    )
    for a, b in zip(
        loaded.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_keras_model_shares_its_weights(two):
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    before = plain.get_weights()
    fit(compiled(two, models.Model(plain.inputs, plain.outputs)))
    assert not np.array_equal(before[0], plain.get_weights()[0])


# === What is refused ===


def test_no_jax_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"pip install .*keras-reformer\[jax"):
        JaxEngine()


def test_an_old_jax_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 7, 1))
    with pytest.raises(ImportError, match="needs jax 0.7.2"):
        jax_engine.import_jax()


def test_no_devices_are_refused():
    with pytest.raises(ValueError, match=r"Received: devices=\[\]"):
        JaxEngine([])


def test_what_an_engine_cannot_train_is_refused(two, two_replicas):
    with pytest.raises(ValueError, match="run_eagerly=False"):
        compiled(two, run_eagerly=True)
    with pytest.raises(ValueError, match="reduction=None"):
        compiled(two, loss=keras.losses.MeanSquaredError(reduction=None))
    with two_replicas.scope():
        model = engines.dense_model()
    with pytest.raises(ValueError, match="a strategy of 2 replicas"):
        compiled(two, model)
    model = tiny.make_model(**tiny.SMALLEST, dtype="mixed_float16")
    with pytest.raises(ValueError, match="mixed_float16"):
        compiled(two, model, loss=None)

    class OwnStep(models.Model):
        def train_step(self, data):
            return {}

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="OwnStep.train_step"):
        compiled(two, OwnStep(inputs, keras.layers.Dense(3)(inputs)))


def test_metrics_that_are_no_sums_are_refused(two):
    class Largest(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="largest")
            self.value = self.add_variable((), "zeros", aggregation="mean")

        def update_state(self, y_true, y_pred, sample_weight=None):
            largest = keras.ops.max(y_pred)
            self.value.assign(keras.ops.maximum(self.value, largest))

        def result(self):
            return keras.ops.convert_to_tensor(self.value)

    model = compiled(two, metrics=[Largest()])
    with pytest.raises(ValueError, match="aggregation='mean' of largest"):
        fit(model)
    # One device has them all the same.
    fit(compiled(JaxEngine(two.devices[:1]), metrics=[Largest()]))


def test_many_shapes_warn(two, monkeypatch):
    monkeypatch.setattr(runner, "_MANY_SHAPES", 1)
    inputs = keras.Input((None, 4))
    x = keras.layers.GlobalAveragePooling1D()(inputs)
    model = compiled(two, models.Model(inputs, keras.layers.Dense(3)(x)))
    with pytest.warns(UserWarning, match="Pad the rows"):
        for length in (1, 2):
            rows = np.repeat(X[:, None], length, axis=1)
            model.test_on_batch(rows, Y)
