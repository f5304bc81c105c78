"""A model's steps as functions from values to values, for TensorFlow to trace.

They take and return the values of trainable variables, of the others, and of
metrics. A batch may come in parts, one for each device: loss and gradients of
the parts add up to the batch's, and so do the changes of the metrics.
"""

import contextlib
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_reformer.layers.moving_means import collecting_weights
from keras_reformer.ops.replicas import Part, tracing_part


class Steps:
    """The steps of a compiled model.

    Args:
        model: has the methods of `models.engines.RunsOnEngine`.
        optimizer: `FunctionalOptimizer`, or None.
    """

    def __init__(self, model, optimizer=None):
        self._model = model
        self._optimizer = optimizer
        self._has_gradient: list[bool] = []
        # Indices of the other variables that a step assigns to.
        self.changed: list[int] = []

    def totals(self, fraction, training):
        """A function to sums over the rows of a part, which the loss of any
        part needs of all parts."""

        def totals(trainable, others, metrics, batch, offset):
            asked = []

            def ask(x):
                asked.append(x)
                return x

            part = Part(fraction, ask, offset)
            with tracing_part(part), self._scope(trainable, others, metrics):
                self._model.replica_loss(batch, training)
            return asked

        return totals

    def gradients(self, fraction):
        """A function to gradients, what others changed to, and metrics."""

        def gradients(trainable, others, metrics, batch, totals, offset):
            part = self._part(fraction, totals, offset)
            scope = self._scope(trainable, others, metrics)
            with tracing_part(part), scope as after, tf.GradientTape() as tape:
                tape.watch(trainable)
                loss = self._model.replica_loss(batch, training=True)
                loss = self._model.optimizer.scale_loss(loss)
            found = tape.gradient(loss, trainable)
            self._has_gradient = [each is not None for each in found]
            found = [_values(x) for x in found if x is not None]
            return found, *self._states(after, others, metrics)

        return gradients

    def update(self, trainable, optimizer, gradients):
        """New values of the trainable variables and the optimizer's."""
        given = iter(gradients)
        gradients = [
            _gradient(next(given), value) if has else None
            for has, value in zip(self._has_gradient, trainable, strict=True)
        ]
        return self._optimizer.apply(optimizer, gradients, trainable)

    def test(self, fraction):
        """A function to what others changed to, and metrics."""

        def test(trainable, others, metrics, batch, totals, offset):
            part = self._part(fraction, totals, offset)
            scope = self._scope(trainable, others, metrics)
            with tracing_part(part), scope as after:
                self._model.replica_loss(batch, training=False)
            return self._states(after, others, metrics)

        return test

    def predict(self, trainable, others, batch):
        """Outputs, and what others changed to."""
        with self._scope(trainable, others, []) as after:
            outputs = self._model.predict_step(batch)
        return outputs, self._states(after, others, [])[0]

    def results(self, metrics):
        """The metrics' results, by name."""
        with keras.StatelessScope(
            _pairs(self._model.metrics_variables, metrics)
        ):
            return self._model.get_metrics_result()

    def _part(self, fraction, totals, offset):
        if fraction == 1:
            return None
        given = iter(totals)
        return Part(fraction, lambda x: next(given), offset)

    @contextlib.contextmanager
    def _scope(self, trainable, others, metrics):
        mapping = _pairs(self._model.trainable_variables, trainable)
        mapping += _pairs(self._model.non_trainable_variables, others)
        if metrics:
            mapping += _pairs(self._model.metrics_variables, metrics)
        scope = keras.StatelessScope(mapping, collect_losses=True)
        with collecting_weights() as weights, scope:
            yield _After(scope, weights)

    def _states(self, scope, others, metrics):
        """What the other variables changed to, and values of metrics.

        Of each variable that changed a list of its value and, where that is
        to be a weighted mean over parts, its weight.
        """
        variables = self._model.non_trainable_variables
        after = [scope.value(variable) for variable in variables]
        self.changed = [
            index
            for index, (old, new) in enumerate(zip(others, after, strict=True))
            if old is not new
        ]
        changes = [
            [after[index], *scope.weight(variables[index])]
            for index in self.changed
        ]
        return changes, [
            scope.value(variable)
            for variable in self._model.metrics_variables[: len(metrics)]
        ]


class _After(NamedTuple):
    """Values of variables after a step."""

    scope: keras.StatelessScope
    weights: dict[int, tf.Tensor]

    def value(self, variable):
        return self.scope.get_current_value(variable)

    def weight(self, variable):
        """A list of the weight, empty without one."""
        return [x for x in [self.weights.get(id(variable))] if x is not None]


def _pairs(variables, values):
    return list(zip(variables, values, strict=True))


class Rows(NamedTuple):
    """A gradient that is zero but for some rows, which may be given twice.

    Embeddings have such. Keras's optimizers do not add up what comes twice
    before they square it, so they get what TensorFlow would give them.
    """

    values: Any
    indices: Any


def _values(gradient):
    if isinstance(gradient, tf.IndexedSlices):
        return Rows(gradient.values, gradient.indices)
    return tf.convert_to_tensor(gradient)


def _gradient(values, variable):
    if isinstance(values, Rows):
        return tf.IndexedSlices(*values, dense_shape=tf.shape(variable))
    return values
