"""Checks and changes of the data of `fit`, `evaluate` and `predict`.

Token ids and labels are checked on the host: XLA drops assertions, and a
batch that is refused here has changed nothing yet. Arrays are checked at
once, batches of a `tf.data.Dataset` as they come.
"""

import functools
import inspect
import math
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.models.inputs import as_dict
from keras_reformer.models.targets import class_weights

# Arrays are checked in parts of so many tokens.
_TOKENS_IN_STEP = 2**22
# Datasets that `fit` has fed: Keras hands its validation data to `evaluate`
# after each epoch.
_fed: weakref.WeakSet = weakref.WeakSet()


class ChecksData(ModelMixin):
    """Checks the data of a model of token ids outside of XLA's programs.

    With `_labels_are_tokens`, a `class_weight` applies to each token, and
    rows of weight zero give the replicas of a strategy equal shares: Keras
    concatenates the first batches of all replicas.
    """

    _labels_are_tokens = False

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        call = _bind(keras.Model.fit, self, args, kwargs)
        given, feed = call.arguments, _Feed(self)
        feed.take_class_weight(given)
        if feed.changes_batches:
            _split_validation(given)
        if given.get("validation_data") is not None:
            data = keras.utils.unpack_x_y_sample_weight(
                given["validation_data"]
            )
            size = given.get("validation_batch_size", given.get("batch_size"))
            given["validation_data"] = _Feed(self)(data, size)
        shuffle = given.get("shuffle", True)
        if feed.apply(given, given.get("steps_per_epoch"), shuffle):
            given["shuffle"] = False
        return super().fit(*call.args[1:], **call.kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        call = _bind(keras.Model.evaluate, self, args, kwargs)
        _Feed(self).apply(call.arguments, call.arguments.get("steps"))
        return super().evaluate(*call.args[1:], **call.kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args, **kwargs):
        call = _bind(keras.Model.predict, self, args, kwargs)
        _Feed(self, labels=False).apply(call.arguments)
        return super().predict(*call.args[1:], **call.kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args, **kwargs):
        call = _bind(keras.Model.train_on_batch, self, args, kwargs)
        feed = _Feed(self)
        feed.take_class_weight(call.arguments)
        feed.apply_to_batch(call.arguments)
        return super().train_on_batch(*call.args[1:], **call.kwargs)

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, *args, **kwargs):
        call = _bind(keras.Model.test_on_batch, self, args, kwargs)
        _Feed(self).apply_to_batch(call.arguments)
        return super().test_on_batch(*call.args[1:], **call.kwargs)

    @functools.wraps(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args, **kwargs):
        call = _bind(keras.Model.predict_on_batch, self, args, kwargs)
        _Feed(self, labels=False).apply_to_batch(call.arguments)
        return super().predict_on_batch(*call.args[1:], **call.kwargs)


class _Feed:
    """Checks data on its way to a model, and changes it where it must.

    Args:
        model: a `ChecksData`.
        labels: bool. Whether the data may hold labels.
    """

    def __init__(self, model, labels=True):
        self._model = model
        backbone = getattr(model, "backbone", model)
        self._vocabulary_size = backbone.vocabulary_size
        self._replicas = model.distribute_strategy.num_replicas_in_sync
        self._has_token_labels = labels and model._labels_are_tokens
        self._class_weights = None

    @property
    def changes_batches(self):
        """Whether labels and weights of batches are made here."""
        weighs = self._class_weights is not None
        return self._has_token_labels and (weighs or self._replicas > 1)

    def take_class_weight(self, given):
        """Removes `class_weight`, which Keras would apply to rows."""
        if self._has_token_labels and given.get("class_weight") is not None:
            self._class_weights = class_weights(
                given.pop("class_weight"), self._vocabulary_size
            )

    def apply(self, given, steps=None, shuffle=False):
        """Changes a call's arguments; True if arrays became a dataset."""
        data = [given.get(name) for name in _DATA]
        fed = self(data, given.get("batch_size"), steps, shuffle)
        given.update(zip(_DATA, fed, strict=True))
        return isinstance(fed[0], tf.data.Dataset) and fed[0] is not data[0]

    def apply_to_batch(self, given):
        """Changes the arguments of a call that takes one batch of arrays."""
        data = [given.get(name) for name in _DATA]
        if _are_arrays(data):
            self._check_arrays(data)
            if self.changes_batches:
                data = self._weigh(*data)
            given.update(zip(_DATA, data, strict=True))

    def __call__(self, data, batch_size=None, steps=None, shuffle=False):
        """Data of any kind, checked and changed."""
        x, y, weights = data
        if isinstance(x, tf.data.Dataset):
            return self._map(x), y, weights
        if _are_arrays(data):
            self._check_arrays(data)
            if self.changes_batches:
                batches = _batches(data, batch_size, steps, shuffle)
                return self._map(batches), None, None
            return self._inputs(x), y, weights
        if self._class_weights is not None:
            raise ValueError(
                "A language model weighs the labels of arrays or of a "
                "`tf.data.Dataset`. Received: class_weight and "
                f"type(x)={type(x).__name__}"
            )
        return data

    def _map(self, dataset):
        if dataset in _fed:
            return dataset

        def batch(*data):
            data = keras.utils.unpack_x_y_sample_weight(data)
            self._check(*data)
            if self.changes_batches:
                data = self._weigh(*data)
            x, *rest = data
            return keras.utils.pack_x_y_sample_weight(self._inputs(x), *rest)

        # Steps do not wait for the checks.
        mapped = dataset.map(batch).prefetch(2)
        _fed.add(mapped)
        return mapped

    def _check_arrays(self, data):
        rows = _num_rows(data)
        length = math.prod(_arrays(data[0])[0].shape[1:2])
        step = max(1, _TOKENS_IN_STEP // max(1, length))
        for start in range(0, rows, step):
            part = _map_arrays(
                lambda x, start=start: np.asarray(x[start : start + step]), data
            )
            with tf.device("CPU"):
                self._check(*part)

    def _check(self, x, y, weights):
        """Raises an error for ids and labels outside of the vocabulary."""
        inputs = self._model.complete_inputs(x)
        self._model.check_ids(inputs)
        if self._has_token_labels and y is not None:
            self._model._targets(inputs, y, weights)

    def _weigh(self, x, y, weights):
        """Inputs, labels and weights of one batch."""
        if self._class_weights is not None and weights is not None:
            raise ValueError(
                "Data may have either weights of its own or a `class_weight`. "
                f"Received: sample_weight.shape={tuple(weights.shape)} and "
                "class_weight"
            )
        inputs = self._model.complete_inputs(x)
        labels, weights = self._model._targets(inputs, y, weights)
        if self._class_weights is not None:
            # A user's loss may take one-hot labels.
            tokens = labels if len(labels.shape) == 2 else tf.argmax(labels, -1)
            weights *= tf.gather(self._class_weights, tf.cast(tokens, "int32"))
        return self._fill_up((self._inputs(x), labels, weights))

    def _inputs(self, x):
        """Inputs that Keras can reduce over replicas: no None, no bool."""
        if self._replicas == 1:
            return x
        return {
            name: _without_booleans(value)
            for name, value in as_dict(x).items()
            if value is not None
        }

    def _fill_up(self, batch):
        """The batch with rows of weight zero, divisible among replicas."""
        rows = batch[1].shape[0]
        if self._replicas == 1:
            return batch
        if rows is not None and rows % self._replicas == 0:
            return batch
        x, labels, weights = batch
        # Layers' statistics do not count the rows that fill up.
        batch = self._model.with_masks(x), labels, weights
        spare = -tf.shape(labels)[0] % self._replicas

        def fill_up(x):
            return tf.pad(x, [[0, spare]] + [[0, 0]] * (len(x.shape) - 1))

        return keras.tree.map_structure(fill_up, batch)


_DATA = ("x", "y", "sample_weight")


def _bind(function, model, args, kwargs):
    """A call's arguments, by name."""
    return inspect.signature(function).bind(model, *args, **kwargs)


def _are_arrays(data):
    leaves = keras.tree.flatten(data)
    return data[0] is not None and all(
        leaf is None
        or isinstance(leaf, np.ndarray | tf.Tensor)
        or (hasattr(leaf, "__array__") and hasattr(leaf, "shape"))
        for leaf in leaves
    )


def _arrays(data):
    return [x for x in keras.tree.flatten(data) if x is not None]


def _map_arrays(function, data):
    return keras.tree.map_structure(
        lambda x: None if x is None else function(x), tuple(data)
    )


def _without_booleans(x):
    if x.dtype != bool:
        return x
    # An array stays one: a tensor of it would lie on the default device.
    return tf.cast(x, tf.int8) if tf.is_tensor(x) else x.astype("int8")


def _num_rows(data):
    rows = {x.shape[0] for x in _arrays(data)}
    if len(rows) != 1:
        raise ValueError(
            "Inputs, labels and weights must have as many rows. "
            f"Received: rows={sorted(rows)}"
        )
    return rows.pop()


def _batches(data, batch_size, steps, shuffle):
    """A dataset of arrays, in batches as Keras makes them."""
    rows = _num_rows(data)
    if not batch_size:
        batch_size = math.ceil(rows / steps) if steps else 32
    with tf.device("CPU"):
        data = _map_arrays(tf.convert_to_tensor, data)
    indices = tf.data.Dataset.range(rows)
    if shuffle:
        indices = indices.shuffle(rows)
    return indices.batch(batch_size).map(
        lambda index: _map_arrays(lambda x: tf.gather(x, index), data)
    )


def _split_validation(given):
    """Makes validation data of the last rows of arrays, as Keras does."""
    data = [given.get(name) for name in _DATA]
    share = given.get("validation_split", 0.0)
    if not share or given.get("validation_data") is not None:
        return
    # What cannot be split is left to Keras, which refuses it.
    if _are_arrays(data):
        first = math.floor(_num_rows(data) * (1.0 - share))
        given["validation_data"] = _map_arrays(lambda x: x[first:], data)
        given["validation_split"] = 0.0
        kept = _map_arrays(lambda x: x[:first], data)
        given.update(zip(_DATA, kept, strict=True))
