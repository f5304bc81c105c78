"""Variables that follow weighted means of the batches that they see."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

from keras_reformer.ops.replicas import fraction, mean_over_replicas

_weights: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "weights", default=None
)


@contextlib.contextmanager
def collecting_weights() -> Iterator[dict[int, keras.KerasTensor]]:
    """Within it, what replicas assign by `assign_mean` stays their own.

    Whoever collects takes the means over replicas, where a sum over them can
    be had: neither in a loop nor in a custom gradient.

    Yields:
        dict of the weights of what was assigned, by the variable's `id`;
        empty where there is one replica.
    """
    weights: dict = {}
    token = _weights.set(weights)
    try:
        yield weights
    finally:
        _weights.reset(token)


def assign_mean(variable, value, weight):
    """Assigns the mean of what all replicas would assign.

    Args:
        variable: Keras variable.
        value: Float tensor of its shape, of this replica.
        weight: Float tensor that broadcasts to it, not negative. Where the
            sum of all replicas' is zero, the variable stays as it is.
    """
    collected = _weights.get()
    if fraction() < 1:
        if collected is None:
            value = mean_over_replicas(
                keras.ops.convert_to_tensor(variable), value, weight
            )
        else:
            collected[id(variable)] = weight
    variable.assign(value)
