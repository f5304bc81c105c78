"""Comparison of a SavedModel's outputs with those of its model."""

import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.export.endpoints import (
    Limits,
    endpoints,
    serving_function,
)

_TOLERANCE = 1e-5

# Runs in a process of its own. TensorFlow imports Keras if it can, so imports
# of Keras and of this package are blocked.
_LOAD_AND_CALL = """
import sys

sys.modules.update(keras=None, keras_reformer=None)
import numpy as np
import tensorflow as tf

saved_model, request, response = sys.argv[1:]
with np.load(request) as arrays:
    inputs = {name: tf.constant(x) for name, x in arrays.items()}
loaded = tf.saved_model.load(saved_model)
answers = {
    "serve": loaded.serve(**inputs),
    "serving_default": loaded.signatures["serving_default"](**inputs),
}
arrays = {
    f"{endpoint}/{name}": np.array(x, "S" if x.dtype == tf.string else None)
    for endpoint, answer in answers.items()
    for name, x in answer.items()
}
with open(response, "wb") as file:
    np.savez(file, **arrays)
"""


def verify_saved_model(
    version_path: str,
    model: keras.Model,
    token_ids: np.ndarray | dict[str, np.ndarray],
) -> float:
    """Compares a SavedModel, loaded by TensorFlow alone, with its model.

    A new Python process, in which neither Keras nor this package can be
    imported, loads it and calls both default endpoints.

    Args:
        version_path: str. As `export_saved_model` returns it.
        model: The model that was exported.
        token_ids: int32 array of shape `(batch, length)`, or the strings
            that the model takes instead. For an encoder-decoder a dict of
            `encoder_token_ids` and `decoder_token_ids`.

    Returns:
        difference: float. The largest absolute difference of an output.

    Raises:
        ValueError: if there is no SavedModel.
        RuntimeError: if it is larger than 1e-5 of the largest output, or if
            the process fails.
    """
    if not tf.saved_model.contains_saved_model(version_path):
        raise ValueError(
            "There is no SavedModel to verify. Expected the folder that "
            "`export_saved_model` returned. Received: "
            f"version_path={version_path!r}"
        )
    serve = endpoints(model)[0]
    given = token_ids
    if not isinstance(given, dict):
        given = {name: given for name in serve.specs}
    request = {
        name: _array(tf.constant(given[name], spec.dtype))
        for name, spec in serve.specs.items()
    }
    expected = _answer(serve, request)
    received = _run_elsewhere(version_path, request)
    difference = max(
        _difference(value, expected[key.split("/")[1]])
        for key, value in received.items()
    )
    numbers = [x for x in expected.values() if x.dtype.kind != "S"]
    largest = max((float(np.max(np.abs(x))) for x in numbers), default=0.0)
    allowed = _TOLERANCE * largest
    # Also true for NaN.
    if not difference <= allowed:
        raise RuntimeError(
            "The exported model gives other outputs than the model. Expected "
            f"a difference of at most {allowed:.1e}. Received: "
            f"difference={difference:.1e}, version_path={version_path!r}"
        )
    return difference


def _answer(serve, request) -> dict[str, np.ndarray]:
    """The expected outputs of the default endpoint.

    Traced as in the SavedModel, so that graph optimizations are the same.
    """
    answer = serving_function(serve, Limits())(**request)
    return {name: _array(x) for name, x in answer.items()}


def _array(x) -> np.ndarray:
    """A NumPy array; strings have a fixed width."""
    return np.array(x, "S" if x.dtype == tf.string else None)


def _difference(x, y) -> float:
    if x.dtype.kind == "S":
        return 0.0 if np.array_equal(x, y) else float("inf")
    return float(np.max(np.abs(x - y)))


def _run_elsewhere(version_path, inputs):
    with tempfile.TemporaryDirectory() as folder:
        request = os.path.join(folder, "inputs.npz")
        response = os.path.join(folder, "answers.npz")
        np.savez(request, **inputs)
        process = subprocess.run(
            [sys.executable, "-I", "-c", _LOAD_AND_CALL]
            + [os.path.abspath(version_path), request, response],
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(
                f"A fresh Python process could not run `{version_path}`:\n"
                f"{process.stderr[-2000:]}"
            )
        with np.load(response) as answers:
            return dict(answers)
