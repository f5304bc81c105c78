"""Keras's losses of a batch that several replicas see in parts."""

import copy

import keras

from keras_reformer.ops.replicas import fraction, sum_over_replicas

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


def of_all_parts(loss):
    """The loss as one whose means are those of whole batches.

    Args:
        loss: `keras.losses.Loss`, a function, its name, or None.

    Returns:
        A `keras.losses.Loss` that is `loss` where a batch is in one piece, or
        None. Where it is in parts, their losses times their fractions add up
        to the batch's.
    """
    if loss is None:
        return None
    loss = _as_object(loss)
    if loss.reduction not in (*_MEANS, "sum"):
        raise ValueError(
            "An engine adds up what its devices make of a batch's parts. "
            f"Expected a loss whose `reduction` is one of {(*_MEANS, 'sum')}. "
            f"Received: reduction={loss.reduction!r} of {loss.name}"
        )
    return _OfAllParts(loss)


class _OfAllParts(keras.losses.Loss):
    def __init__(self, loss):
        super().__init__(loss.name, loss.reduction, loss.dtype)
        self._loss = loss
        self._total = copy.copy(loss)
        self._total.reduction = "sum"
        self._count = _Ones(loss)

    def __call__(self, y_true, y_pred, sample_weight=None):
        if fraction() == 1:
            return self._loss(y_true, y_pred, sample_weight)
        total = self._total(y_true, y_pred, sample_weight)
        if self.reduction != "sum":
            is_weighted = self.reduction == "mean_with_sample_weight"
            weight = sample_weight if is_weighted else None
            count = self._count(y_true, y_pred, weight)
            count = sum_over_replicas(count)
            total = keras.ops.divide_no_nan(total, count)
        return total / fraction()

    def call(self, y_true, y_pred):
        return self._loss.call(y_true, y_pred)


class _Ones(keras.losses.Loss):
    """The sum of weights and masks of a loss."""

    def __init__(self, loss):
        super().__init__(loss.name, "sum", loss.dtype)
        self._loss = loss

    def call(self, y_true, y_pred):
        return keras.ops.ones_like(self._loss.call(y_true, y_pred))


def _as_object(loss):
    found = keras.losses.get(loss)
    if isinstance(found, keras.losses.Loss):
        return found
    name = loss if isinstance(loss, str) else found.__name__
    # As Keras makes an object of a function: with its reconciliation of ranks.
    made = keras.losses.MeanSquaredError(name=name)
    made.fn = found
    return made
