"""What runs a model's steps on an engine's devices."""

import contextlib
import weakref

import jax
import keras
import numpy as np
import tensorflow as tf

from keras_reformer.distribute import devices
from keras_reformer.distribute.optimizers import FunctionalOptimizer
from keras_reformer.distribute.programs import Programs
from keras_reformer.distribute.steps import Steps

_SEEDS = "seed_generator_state"


class Runner:
    """Runs the steps of one compiled model, and has its weights meanwhile.

    Args:
        model: has the methods of `models.engines.RunsOnEngine`.
        engine: `JaxEngine`.
    """

    def __init__(self, model, engine):
        # The model has the runner.
        self._model = weakref.proxy(model)
        self._engine = engine
        self._state = None
        self._is_built = False

    def train_function(self):
        """A function of an iterator that Keras calls to train."""
        return self._on_iterator(self._make_programs().train)

    def test_function(self):
        """A function of an iterator that Keras calls to evaluate."""
        return self._on_iterator(self._make_programs().test)

    def predict_function(self):
        """A function of a list of batches that Keras calls to predict."""
        step = self._step(self._make_programs().predict)

        def predict(data):
            found = []
            for batch in data:
                batch = _arrays(batch)
                rows = _num_rows(batch)
                spare = -rows % self._engine.num_devices
                outputs = step(_map(lambda x: _longer(x, spare), batch))
                found.append(_map(lambda x: np.asarray(x)[:rows], outputs))
            return keras.tree.map_structure(
                lambda *x: tf.convert_to_tensor(np.concatenate(x)), *found
            )

        return predict

    @contextlib.contextmanager
    def running(self):
        """Brings values back at the end, also where it is an error."""
        try:
            yield
        finally:
            self.bring_back()

    def bring_back(self):
        """Gives the model's variables the values that steps have made."""
        if self._state is None:
            return
        state, self._state = self._state, None
        groups = zip(self._variables(), jax.device_get(state), strict=True)
        for variables, values in groups:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    # === Steps ===

    def _make_programs(self):
        model, optimizer = self._model, None
        if model.optimizer is not None:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            optimizer = FunctionalOptimizer(
                model.optimizer, model.trainable_variables
            )
        seeds = [
            index
            for index, variable in enumerate(model.non_trainable_variables)
            if variable.name == _SEEDS
        ]
        return Programs(Steps(model, optimizer), self._engine, seeds)

    def _on_iterator(self, make_program):
        step = self._step(make_program)

        def run(iterator):
            logs = None
            for _ in range(self._model.steps_per_execution):
                try:
                    batch = next(iterator)
                except (StopIteration, tf.errors.OutOfRangeError):
                    if logs is None:
                        raise
                    break
                batch = _arrays(batch)
                self._build(batch)
                logs = step(batch)
            return logs

        return run

    def _build(self, batch):
        if not self._is_built:
            self._model.build_metrics(batch)
            self._is_built = True

    def _step(self, make_program):
        """A function of a batch that compiles once for each shape."""
        programs = {}

        def step(batch):
            if self._state is None:
                self._state = devices.put_everywhere(
                    self._engine.mesh, self._variables()
                )
            batch = devices.put_batch(self._engine.mesh, batch)
            key = _shapes(batch)
            if key not in programs:
                programs[key] = make_program(self._state, batch)
            logs, self._state = programs[key](self._state, batch)
            return logs

        return step

    def _variables(self):
        model = self._model
        optimizer = model.optimizer
        return devices.State(
            model.trainable_variables,
            model.non_trainable_variables,
            [] if optimizer is None else optimizer.variables,
            model.metrics_variables,
        )


def _arrays(batch):
    """A batch of NumPy arrays; optional values that are missing are None."""

    def array(x):
        if x is None or isinstance(x, tf.experimental.Optional):
            return None
        return np.asarray(x)

    return keras.tree.map_structure(array, batch)


def _map(function, batch):
    return keras.tree.map_structure(
        lambda x: None if x is None else function(x), batch
    )


def _num_rows(batch):
    leaves = [x for x in keras.tree.flatten(batch) if x is not None]
    return leaves[0].shape[0]


def _longer(x, spare):
    return np.concatenate([x, np.repeat(x[-1:], spare, axis=0)])


def _shapes(batch):
    leaves, structure = jax.tree.flatten(batch)
    return structure, *((x.shape, str(x.dtype)) for x in leaves)
