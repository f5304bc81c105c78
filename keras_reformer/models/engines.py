"""Models whose steps something else than TensorFlow runs."""

import inspect

import keras
import tensorflow as tf

from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.models.losses import of_all_parts
from keras_reformer.ops.replicas import fraction


class RunsOnEngine(ModelMixin):
    """Lets an engine run the steps of `fit`, `evaluate` and `predict`.

    An engine is an object such as `keras_reformer.distribute.JaxEngine`. Its
    `runner(model)` has the functions that Keras calls with its iterators,
    `train_function`, `test_function` and `predict_function`, and
    `bring_back()`, after which the variables have the values that these have
    made. They trace `replica_loss`.
    """

    _runner = None
    _given_loss = None

    def compile(
        self, optimizer="rmsprop", loss=None, *args, engine=None, **kwargs
    ):
        """Configures training; see `keras.Model.compile`.

        Args:
            optimizer: Optimizer or its name. Defaults to `"rmsprop"`.
            loss: as Keras takes it.
            *args: further arguments, as Keras takes them.
            engine: `keras_reformer.distribute.JaxEngine` that runs the steps,
                or None for TensorFlow. Defaults to `None`.
            **kwargs: further arguments, as Keras takes them.
        """
        self._runner, self._given_loss = None, loss
        if engine is not None and engine.num_devices > 1:
            loss = keras.tree.map_structure(of_all_parts, loss)
        super().compile(optimizer, loss, *args, **kwargs)
        if engine is not None:
            self._runner = engine.runner(self)

    def get_compile_config(self):
        config = super().get_compile_config()
        if self._runner is None or not config:
            return config
        loss = keras.saving.serialize_keras_object(self._given_loss)
        return {**config, "loss": loss}

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    # === What an engine traces ===

    def replica_loss(self, data, training):
        """The loss that gradients are taken of, and new states of metrics.

        The sum of what all parts of a batch return is the batch's loss.

        Args:
            data: a batch, or a part of it, as `train_step` takes it.
            training: bool.

        Returns:
            Scalar float tensor.
        """
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self(x, training=training)
        loss = self.compute_loss(x, y, outputs, weights, training)
        # The first is Keras's mean of the batches' losses.
        self.metrics[0].update_state(loss, sample_weight=num_rows(x))
        self.compute_metrics(x, y, outputs, weights)
        return loss * fraction()

    def build_metrics(self, data):
        """Makes the variables of metrics that depend on the data."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        shapes = keras.tree.map_structure(_symbol, x)
        outputs = keras.tree.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype),
            self.compute_output_spec(shapes),
        )

        def build(outputs):
            self.compute_loss(x, y, outputs, weights, training=False)
            self.compute_metrics(x, y, outputs, weights)

        traced = tf.function(build, autograph=False)
        traced.get_concrete_function(outputs)

    # === Functions that Keras calls ===

    def make_train_function(self, force=False):
        make = super().make_train_function
        return self._function_of_runner("train_function", make, force)

    def make_test_function(self, force=False):
        make = super().make_test_function
        return self._function_of_runner("test_function", make, force)

    def make_predict_function(self, force=False):
        make = super().make_predict_function
        return self._function_of_runner("predict_function", make, force)

    def _function_of_runner(self, name, make_with_tensorflow, force):
        if self._runner is None:
            return make_with_tensorflow(force)
        if getattr(self, name) is None or force:
            setattr(self, name, getattr(self._runner, name)())
        return getattr(self, name)

    # === When variables get their values back ===

    def fit(self, *args, **kwargs):
        call = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs)
        if self._runner is not None:
            call.arguments["callbacks"] = with_values(
                call.arguments.get("callbacks"), self._runner
            )
        return self._brought_back(super().fit, *call.args[1:], **call.kwargs)

    def evaluate(self, *args, **kwargs):
        return self._brought_back(super().evaluate, *args, **kwargs)

    def predict(self, *args, **kwargs):
        return self._brought_back(super().predict, *args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        return self._brought_back(super().train_on_batch, *args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        return self._brought_back(super().test_on_batch, *args, **kwargs)

    def predict_on_batch(self, *args, **kwargs):
        return self._brought_back(super().predict_on_batch, *args, **kwargs)

    def get_metrics_result(self):
        # Keras reads the metrics at the end of an epoch.
        if self._runner is not None and not tf.inside_function():
            self._runner.bring_back()
        return super().get_metrics_result()

    def save(self, *args, **kwargs):
        self._bring_back()
        return super().save(*args, **kwargs)

    def save_weights(self, *args, **kwargs):
        self._bring_back()
        return super().save_weights(*args, **kwargs)

    def _brought_back(self, function, *args, **kwargs):
        if self._runner is None:
            return function(*args, **kwargs)
        with self._runner.running():
            return function(*args, **kwargs)

    def _bring_back(self):
        if self._runner is not None:
            self._runner.bring_back()


class _BringsBack(keras.callbacks.Callback):
    """Gives variables their values for the callbacks after it."""

    def __init__(self, runner):
        super().__init__()
        self._runner = runner

    def on_train_batch_end(self, batch, logs=None):
        self._runner.bring_back()


def with_values(callbacks, runner):
    """The callbacks of `fit`, those that look at batches after values.

    Keras's own look at logs alone, or save the model.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if _look_at_batches(callbacks.callbacks):
            callbacks.callbacks.insert(0, _BringsBack(runner))
        return callbacks
    given = keras.tree.flatten(callbacks or [])
    if _look_at_batches(given):
        return [_BringsBack(runner), *given]
    return callbacks


def _look_at_batches(callbacks):
    hooks = [
        getattr(callback, f"on_{name}")
        for callback in callbacks
        for name in _BATCH_HOOKS
    ]
    return any(hook.__module__.partition(".")[0] != "keras" for hook in hooks)


_BATCH_HOOKS = (
    "batch_begin",
    "batch_end",
    "train_batch_begin",
    "train_batch_end",
)


def num_rows(x):
    """The number of rows of a batch's inputs."""
    return next(i.shape[0] for i in keras.tree.flatten(x) if i is not None)


def _symbol(x):
    return None if x is None else keras.KerasTensor(x.shape, x.dtype)
