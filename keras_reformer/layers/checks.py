"""Arguments refused while building, with what to do about it."""

import numbers

import keras


def positive_int(name, value):
    """Returns a positive int, or raises a `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        _refuse(name, value, "a positive integer")
    if value < 1:
        _refuse(name, value, "a positive integer")
    return int(value)


def positive_ints(name, values):
    """Returns a list of positive ints, or raises a `ValueError`."""
    if not isinstance(values, (list, tuple)):
        _refuse(name, values, "a list of positive integers")
    return [positive_int(name, value) for value in values]


def count(name, value):
    """Returns a non-negative int, or raises a `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        _refuse(name, value, "zero or a positive integer")
    if value < 0:
        _refuse(name, value, "zero or a positive integer")
    return int(value)


def integer(name, value):
    """Returns an int, or raises a `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        _refuse(name, value, "an integer")
    return int(value)


def positive(name, value):
    """Returns a positive float, or raises a `ValueError`."""
    if not isinstance(value, numbers.Real) or not value > 0:
        _refuse(name, value, "a positive number")
    return float(value)


def rate(name, value):
    """Returns a rate in `[0, 1)`, or raises a `ValueError`."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        _refuse(name, value, "a number from 0 up to but not 1")
    return float(value)


def layer(name, value):
    """Returns a Keras layer, or raises a `ValueError`."""
    if not isinstance(value, keras.Layer):
        _refuse(name, value, "a Keras layer")
    return value


def layer_or_none(name, value):
    """Returns a Keras layer or None, or raises a `ValueError`."""
    return value if value is None else layer(name, value)


def choice(name, value, choices):
    """Returns one of the choices, or raises a `ValueError`."""
    if value not in choices:
        _refuse(name, value, f"one of {choices}")
    return value


def sequence_shape(layer_name, shape):
    """Refuses inputs that are not `(batch, length, hidden_dim)`."""
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"Layer `{layer_name}` takes inputs of shape `(batch, length, "
            "hidden_dim)` whose last dimension is known. "
            f"Received: input_shape={tuple(shape)}"
        )


def _refuse(name, value, expected):
    raise ValueError(
        f"Received an invalid value for argument `{name}`, expected "
        f"{expected}. Received: {name}={value!r}"
    )
