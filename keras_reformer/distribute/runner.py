"""What runs a model's steps on an engine's devices."""

import contextlib
import warnings
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
        _check(model)
        # The model has the runner.
        self._model = weakref.proxy(model)
        self._engine = engine
        self._state = None
        # What was brought back of a state that the devices keep, or None.
        self._seen = None
        self._depth = 0
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

        def predict_batch(batch):
            batch = _arrays(batch)
            rows = _num_rows(batch)
            spare = -rows % len(self._engine.mesh.local_devices)
            outputs = step(_map(lambda x: _longer(x, spare), batch))
            return _map(lambda x: devices.local_rows(x)[:rows], outputs)

        def predict(data):
            found = [predict_batch(batch) for batch in data]
            return keras.tree.map_structure(
                lambda *x: tf.convert_to_tensor(np.concatenate(x)), *found
            )

        return predict

    @contextlib.contextmanager
    def running(self):
        """Brings values back at the end, also where it is an error.

        The devices keep what they have until the outermost of these ends:
        epochs and evaluations of `fit` need not give it to them again.
        """
        self._depth += 1
        try:
            yield
        except BaseException as error:
            if self._is_lost():
                self._state = None
                error.add_note(
                    "The devices lost the weights with the step that failed. "
                    "The model has those from before: of the last epoch's "
                    "end, or of the last save."
                )
            raise
        finally:
            self.bring_back()
            self._depth -= 1
            if not self._depth:
                self._state = self._seen = None

    def bring_back(self):
        """Gives the model's variables the values that steps have made."""
        if self._state is None or self._seen is not None:
            return
        for array in jax.tree.leaves(self._state):
            array.copy_to_host_async()
        # Copies: jax donates nothing that is seen elsewhere.
        values = jax.tree.map(np.array, self._state)
        for variable, array in zip(
            jax.tree.leaves(self._variables()),
            jax.tree.leaves(values),
            strict=True,
        ):
            variable.assign(array)
        if self._depth and not self._engine.mesh.is_multi_process:
            self._seen = values
        else:
            # Processes would have to agree on what has changed.
            self._state = None

    def _is_lost(self):
        """Whether a step has failed that the state was given to."""
        return any(x.is_deleted() for x in jax.tree.leaves(self._state))

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
            if self._engine.num_devices > 1:
                _check_metrics(self._model)
            self._is_built = True

    def _step(self, make_program):
        """A function of a batch that compiles once for each shape."""
        programs = {}

        def step(batch):
            self._put()
            batch = devices.put_batch(self._engine.mesh, batch)
            key = _shapes(batch)
            if key not in programs:
                _warn_of_shapes(len(programs))
                programs[key] = make_program(self._state, batch)
            logs, self._state = programs[key](self._state, batch)
            return logs

        return step

    def _put(self):
        """Gives the devices the variables' values, or what has changed."""
        mesh, variables = self._engine.mesh, self._variables()
        if self._state is None:
            self._state = devices.put_everywhere(mesh, variables)
        elif self._seen is not None:
            # Whoever got values may have changed some.
            self._state = jax.tree.map(
                lambda variable, array, seen: (
                    array
                    if np.array_equal(variable, seen)
                    else devices.put_everywhere(mesh, variable)
                ),
                variables,
                self._state,
                self._seen,
            )
        self._seen = None

    def _variables(self):
        model = self._model
        optimizer = model.optimizer
        return devices.State(
            model.trainable_variables,
            model.non_trainable_variables,
            [] if optimizer is None else optimizer.variables,
            model.metrics_variables,
        )


def _check(model):
    """Refuses a compiled model that the engine cannot train as Keras does."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            "A model runs on an engine or under a strategy of TensorFlow. "
            "Make and compile it outside of `strategy.scope()`. Received: "
            f"an engine, and a strategy of {replicas} replicas"
        )
    if model.run_eagerly:
        raise ValueError(
            "An engine runs compiled programs. Expected run_eagerly=False. "
            "Received: run_eagerly=True"
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "An engine does not scale losses, which float16 needs and "
            "bfloat16 does not. Expected a dtype policy other than "
            f"'mixed_float16'. Received: {model.dtype_policy.name} and "
            f"optimizer={model.optimizer.name}"
        )
    for name in ("train_step", "test_step"):
        step = getattr(type(model), name)
        if step.__module__.partition(".")[0] not in _KNOWN:
            raise ValueError(
                "An engine runs steps of its own. Expected a model that "
                "overrides `compute_loss` or `compute_metrics` at most. "
                f"Received: {step.__qualname__}"
            )


_KNOWN = ("keras", "keras_reformer")


def _check_metrics(model):
    """Refuses metrics that are not sums over the rows of batches."""
    for variable in model.metrics_variables:
        if variable.aggregation != "sum":
            raise ValueError(
                "Several devices add up what their rows change in a metric. "
                "Expected metrics whose variables have aggregation='sum'. "
                f"Received: aggregation={variable.aggregation!r} of "
                f"{variable.path}"
            )


def _warn_of_shapes(count):
    if count == _MANY_SHAPES:
        warnings.warn(
            "Batches have many shapes, and the devices' program is compiled "
            f"for each: {count} so far. Pad the rows of all batches to the "
            "same length, or to few lengths.",
            stacklevel=2,
        )


_MANY_SHAPES = 8


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
