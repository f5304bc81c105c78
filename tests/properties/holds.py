"""The one property: finite results of the promised shape, or a named error."""

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Case(NamedTuple):
    """Something to make and to call.

    Attributes:
        make: makes a layer or a model of `options`.
        options: dict. Arguments of `make`; layers as `functools.partial`.
        inputs: tuple of arrays, or of dicts of arrays; the call's positional
            arguments.
        call: dict. Further arguments of the call.
        execution: `"eager"`, `"graph"` or `"xla"`.
        fit: function of the model that trains it for a step, or None.
        names: what an error may call the arguments else.
    """

    make: Callable[..., Any]
    options: dict[str, Any]
    inputs: tuple
    call: dict[str, Any]
    execution: str = "eager"
    fit: Callable[[Any], Any] | None = None
    names: tuple[str, ...] = ()


def assert_holds(case):
    """Asserts the property.

    A case either gives finite outputs of the shape that it promises and
    finite gradients, or a `ValueError` or `TypeError` that names an argument
    and what was received for it.
    """
    keras.utils.set_random_seed(0)
    with warnings.catch_warnings():
        # That a table has no gradient, for example.
        warnings.simplefilter("ignore")
        try:
            results = _results(case)
        except (ValueError, TypeError) as error:
            assert _is_named(str(error), case), f"unclear: {error}"
            return
        except tf.errors.InvalidArgumentError as error:
            # A graph knows values when it runs.
            assert case.execution == "graph", error
            assert _is_named(str(error), case), f"unclear: {error}"
            return
    for name, array in results.items():
        assert np.isfinite(array).all(), f"{name} is not finite"


def _results(case):
    options = {name: made(value) for name, value in case.options.items()}
    subject = case.make(**options)
    call = _CALLS[case.execution](lambda: _gradients(subject, case))
    # Seeds that the layer draws from are made outside of the graph.
    promised = _promised(subject, case)
    outputs, gradients = call()
    outputs = dict(enumerate(keras.tree.flatten(outputs)))
    for index, output in outputs.items():
        assert output.shape == promised[index], "another shape than promised"
    results = {f"output {i}": _float64(x) for i, x in outputs.items()}
    results |= {
        f"gradient of {name}": _float64(x)
        for name, x in gradients.items()
        if x is not None
    }
    if case.fit is not None:
        results["loss"] = _float64(case.fit(subject))
        results |= {v.path: _float64(v) for v in subject.trainable_variables}
    return results


def _gradients(subject, case):
    inputs = keras.tree.map_structure(_as_tensor, case.inputs)
    watched = [
        x
        for x in keras.tree.flatten(inputs)
        if tf.is_tensor(x) and x.dtype.is_floating
    ]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        outputs = subject(*inputs, **case.call)
        total = tf.add_n(
            [
                tf.reduce_sum(tf.cast(x, "float64"))
                for x in keras.tree.flatten(outputs)
            ]
        )
    variables = [v.value for v in subject.trainable_variables]
    found = tape.gradient(total, [*watched, *variables])
    names = [f"input {i}" for i in range(len(watched))]
    names += [variable.path for variable in subject.trainable_variables]
    return outputs, dict(zip(names, found, strict=True))


def _as_tensor(x):
    return tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x


def _promised(subject, case):
    """The shapes that a layer or model promises before it is called."""
    symbols = keras.tree.map_structure(
        lambda x: (
            keras.KerasTensor(x.shape, _as_tensor(x).dtype.name)
            if isinstance(x, np.ndarray)
            else x
        ),
        case.inputs,
    )
    spec = subject.compute_output_spec(*symbols)
    shapes = [tuple(x.shape) for x in keras.tree.flatten(spec)]
    return shapes


def _float64(x):
    if isinstance(x, tf.IndexedSlices):
        x = x.values
    return np.asarray(keras.ops.cast(x, "float64"))


_CALLS = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(
        function, autograph=False, jit_compile=True
    ),
}


def _is_named(message, case):
    """Whether an error names an argument and what it received.

    The library says `Received: name=value`, Keras names both somehow. Keras
    appends a call's arguments to every message, which is no answer.
    """
    message = message.partition("Arguments received by")[0]
    values = {**case.options, **case.call, **_arrays_by_name(case)}
    return any(
        re.search(rf"Received:[\s\S]*\b{name}\b(\.\w+)?(=| of type)", message)
        or f"Received, as least and greatest of {name}" in message
        or (re.search(rf"\b{name}\b", message) and _shows(message, value))
        for name, value in values.items()
    )


def _arrays_by_name(case):
    """The inputs by the names that an error may have for them."""
    first, found = case.inputs[0], dict.fromkeys(case.names)
    for each in case.inputs:
        found |= each if isinstance(each, dict) else {}
    names = ("inputs", "input_shape", "token_ids", "query")
    arrays = keras.tree.flatten(case.inputs)
    return {**dict.fromkeys(names, first), "dtype": arrays, **found}


def _shows(message, value):
    """Whether a value, its shape or its dtype is in a message."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    shown = [str(value), *map(repr, [value, *parts])]
    arrays = [_as_tensor(x) for x in parts if isinstance(x, np.ndarray)]
    if isinstance(value, dict):
        shown += [*map(str, value), "missing: "]
    shown += [str(tuple(x.shape)) for x in arrays]
    shown += [x.dtype.name for x in arrays]
    shown += [str(tuple(tuple(x.shape) for x in arrays))]
    return any(each in message for each in shown)


def made(value):
    """A value with the layers that it describes, made anew."""
    if isinstance(value, (list, tuple)):
        return type(value)(made(each) for each in value)
    if not isinstance(value, functools.partial):
        return value
    arguments = (made(each) for each in value.args)
    return value.func(*arguments, **value.keywords)
