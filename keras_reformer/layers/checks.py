"""Checks of arguments, which raise a `ValueError` while tracing."""

import math
import numbers
from typing import Any

import keras
import numpy as np

# Sizes and indices are int32.
_LARGEST_INT = 2**31 - 1
# The least computation is float32, where numbers further out, or their
# inverses, are zero or infinite.
_LEAST, _LARGEST = 1e-37, 1e37


def num_key_value_heads(value, num_heads, name="num_key_value_heads"):
    """Returns the number of heads of keys and values.

    Args:
        value: a divisor of `num_heads`, or None for as many.
        num_heads: int.
        name: of the argument.
    """
    if value is None:
        return num_heads
    value = positive_int(name, value)
    if num_heads % value:
        raise ValueError(
            "As many heads of queries share each head of keys and values. "
            f"Expected a divisor of num_heads={num_heads}. Received: "
            f"{name}={value}"
        )
    return value


def no_key_value_heads(value, num_heads=None):
    """Raises a `ValueError` where shared query-keys would be grouped."""
    if value not in (None, num_heads):
        raise ValueError(
            "A shared query-key is a query too, so there are as many keys as "
            "queries. Expected num_key_value_heads=None; values that share a "
            "head's attention weights are a larger `value_dim` of fewer "
            f"heads. Received: num_key_value_heads={value!r}"
        )


def boolean(name, value):
    """Returns a bool, also for 0 and 1, or raises a `ValueError`."""
    is_bool = isinstance(value, numbers.Integral | np.bool_)
    if not is_bool or value not in (0, 1):
        _refuse(name, value, "a bool")
    return bool(value)


def positive_int(name, value):
    """Returns a positive int, or raises a `ValueError`."""
    return _int(name, value, 1, _LARGEST_INT, "a positive integer")


def positive_ints(name, values):
    """Returns a list of positive ints, or raises a `ValueError`."""
    if not isinstance(values, (list, tuple)):
        _refuse(name, values, "a list of positive integers")
    return [positive_int(name, value) for value in values]


def count(name, value):
    """Returns a non-negative int, or raises a `ValueError`."""
    return _int(name, value, 0, _LARGEST_INT, "zero or a positive integer")


def integer(name, value):
    """Returns an int, or raises a `ValueError`."""
    return _int(name, value, -_LARGEST_INT, _LARGEST_INT, "an integer")


def seed(name, value):
    """Returns an int or None, or raises a `ValueError`."""
    if value is None:
        return None
    # A model multiplies its seed by 1000.
    return _int(name, value, -(2**53), 2**53, "None or an integer of 53 bits")


def positive(name, value):
    """Returns a positive float, or raises a `ValueError`."""
    if not _is_real(value) or not _LEAST <= value <= _LARGEST:
        _refuse(name, value, f"a number from {_LEAST:g} to {_LARGEST:g}")
    return float(value)


def rate(name, value):
    """Returns a rate in `[0, 1)`, or raises a `ValueError`."""
    if not _is_real(value) or not 0 <= value < 1:
        _refuse(name, value, "a number from 0 up to but not 1")
    return float(value)


def initializer(name, value, default=None):
    """Returns an initializer, or raises a `ValueError`.

    Args:
        name: of the argument.
        value: an argument of `keras.initializers.get`, or None.
        default: the value that None stands for.
    """
    return _identified(name, default if value is None else value, "initializer")


def regularizer(name, value):
    """Returns a regularizer or None, or raises a `ValueError`."""
    return _identified(name, value, "regularizer")


def constraint(name, value):
    """Returns a constraint or None, or raises a `ValueError`."""
    return _identified(name, value, "constraint")


def activation(name, value) -> Any:
    """Returns a function, or raises a `ValueError`."""
    return _identified(name, value, "activation")


def fresh(initializer):
    """A copy for one more variable: a seeded object repeats its values."""
    clone = getattr(initializer, "clone", None)
    return initializer if clone is None else clone()


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
    # An array would be compared with each element by element.
    if not any(value is each or _is_equal(value, each) for each in choices):
        _refuse(name, value, f"one of {choices}")
    return value


def sequence_shape(layer_name, shape):
    """Raises a `ValueError` unless it is `(batch, length, hidden_dim)`."""
    # None and structures have no shape.
    if shape is None or len(shape) != 3 or not _is_size(shape[-1]):
        raise ValueError(
            f"Layer `{layer_name}` takes inputs of shape `(batch, length, "
            "hidden_dim)` whose last dimension is known. "
            f"Received: input_shape={shape}"
        )


def vectors_shape(layer_name, shape):
    """Raises a `ValueError` unless it is `(batch, ..., hidden_dim)`."""
    if shape is None or len(shape) < 2 or not _is_size(shape[-1]):
        raise ValueError(
            f"Layer `{layer_name}` takes inputs of shape `(..., hidden_dim)` "
            "with a batch, whose last dimension is known. "
            f"Received: input_shape={shape}"
        )


def mask(name, value, shape):
    """Returns a mask as a bool tensor, or raises a `ValueError`.

    Args:
        name: of the argument.
        value: array or tensor of booleans or numbers, or None.
        shape: the shape that it must have, None where not known.
    """
    if value is None:
        return None
    shape = tuple(shape)
    found, dtype = _array_type(value)
    if dtype is None or dtype == "string" or not fits(found, shape):
        raise ValueError(
            f"`{name}` must be a tensor of booleans, True at what is seen. "
            f"Expected shape {shape}. Received: {_received(name, value)}"
        )
    return keras.ops.cast(value, "bool")


def integers(name, value, shape):
    """Returns an int32 tensor of a shape, or raises a `ValueError`.

    Args:
        name: of the argument.
        value: array or tensor of integers, or None.
        shape: the shape that it must have, None where not known.
    """
    if value is None:
        return None
    shape = tuple(shape)
    found, dtype = _array_type(value)
    is_int = dtype is not None and dtype.startswith(("int", "uint"))
    if not is_int or not fits(found, shape):
        raise ValueError(
            f"`{name}` must be a tensor of integers, one for each token. "
            f"Expected shape {shape}. Received: {_received(name, value)}"
        )
    # Of a symbolic tensor the shape is used.
    is_symbol = isinstance(value, keras.KerasTensor)
    return value if is_symbol else keras.ops.cast(value, "int32")


def numeric(name, x):
    """Returns a tensor of numbers or bools, or raises a `ValueError`."""
    _, dtype = _array_type(x)
    if dtype == "string":
        raise ValueError(
            f"`{name}` must hold numbers. Expected a float dtype. Received: "
            f"{_received(name, x)}"
        )
    return x


def floating(name, x):
    """Returns a tensor of floats, or raises a `ValueError`."""
    _, dtype = _array_type(x)
    if dtype is None or "float" not in dtype:
        raise ValueError(
            f"`{name}` must hold floats. Expected a float dtype. Received: "
            f"{_received(name, x)}"
        )
    return x


def start_index(value, batch):
    """Raises a `ValueError` unless it is an int, or one for each row.

    Args:
        value: int, or array or tensor of shape `()` or `(batch,)`.
        batch: int or None. Number of rows.
    """
    name = "start_index"
    if isinstance(value, numbers.Integral):
        return count(name, value)
    shape, dtype = _array_type(value)
    is_int = dtype is not None and "int" in dtype
    if not is_int or not (shape == () or fits(shape, (batch,))):
        raise ValueError(
            f"`{name}` is the first position. Expected an integer, or one of "
            f"each row, shape {(batch,)}. Received: {_received(name, value)}"
        )
    return value


def _is_size(size):
    return isinstance(size, numbers.Integral)


def _array_type(value):
    """Shape and dtype of an array or a tensor; None and None of others."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return None, None
    dtype = getattr(value.dtype, "name", str(value.dtype))
    known = "string" if dtype.startswith(("str", "object", "bytes")) else dtype
    return tuple(value.shape), known


def _received(name, value):
    """An array's shape and dtype, or the value itself."""
    shape, dtype = _array_type(value)
    if dtype is None:
        return f"{name}={value!r}"
    return f"{name}.shape={shape}, {name}.dtype={dtype}"


def fits(shape, expected):
    """Whether a shape may be the expected one; None is any size."""
    return len(shape) == len(expected) and all(
        size is None or other is None or size == other
        for size, other in zip(shape, expected, strict=True)
    )


def _int(name, value, least, largest, expected):
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int or value < least:
        _refuse(name, value, expected)
    if value > largest:
        _refuse(name, value, f"{expected} of at most {largest}")
    return int(value)


def _is_real(value):
    is_real = isinstance(value, numbers.Real)
    if not is_real or isinstance(value, bool):
        return False
    magnitude: Any = abs(value)
    return magnitude < math.inf


def _is_equal(value, other):
    return isinstance(value, type(other)) and value == other


def _identified(name, value, kind):
    """What `keras.<kind>s.get` returns, or a `ValueError`."""
    try:
        found = getattr(keras, f"{kind}s").get(value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"Received an invalid value for argument `{name}`, expected what "
            f"`keras.{kind}s.get` takes. Received: {name}={value!r}"
        ) from error
    if found is not None and not callable(found):
        _refuse(name, value, f"what `keras.{kind}s.get` takes")
    return found


def _refuse(name, value, expected):
    raise ValueError(
        f"Received an invalid value for argument `{name}`, expected "
        f"{expected}. Received: {name}={value!r}"
    )
