"""The proof that a SavedModel gives the answers of its model."""

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

# Runs in a process of its own. TensorFlow imports Keras by itself where it
# can, so both it and this package are made impossible to import.
_LOAD_AND_CALL = """
import sys

sys.modules.update(keras=None, keras_reformer=None)
import numpy as np
import tensorflow as tf

saved_model, request, response = sys.argv[1:]
token_ids = tf.constant(np.load(request))
loaded = tf.saved_model.load(saved_model)
answers = {
    "serve": loaded.serve(token_ids),
    "serving_default": loaded.signatures["serving_default"](
        token_ids=token_ids
    ),
}
arrays = {
    f"{endpoint}/{name}": x.numpy()
    for endpoint, answer in answers.items()
    for name, x in answer.items()
}
with open(response, "wb") as file:
    np.savez(file, **arrays)
"""


def verify_saved_model(
    version_path: str, model: keras.Model, token_ids: np.ndarray
) -> float:
    """Compares a SavedModel, loaded by TensorFlow alone, with its model.

    A fresh Python process in which neither Keras nor this package can be
    imported loads it and asks both default endpoints.

    Args:
        version_path: str. As `export_saved_model` returns it.
        model: The model that was exported.
        token_ids: int32 array of shape `(batch, length)`.

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
    token_ids = np.asarray(token_ids, np.int32)
    expected = _answer(model, token_ids)
    received = _run_elsewhere(version_path, token_ids)
    difference = max(
        float(np.max(np.abs(value - expected[key.split("/")[1]])))
        for key, value in received.items()
    )
    largest = max(float(np.max(np.abs(x))) for x in expected.values())
    allowed = _TOLERANCE * largest
    # Written so that a NaN fails too.
    if not difference <= allowed:
        raise RuntimeError(
            "The exported model gives other outputs than the model. Expected "
            f"a difference of at most {allowed:.1e}. Received: "
            f"difference={difference:.1e}, version_path={version_path!r}"
        )
    return difference


def _answer(model, token_ids) -> dict[str, np.ndarray]:
    """What the default endpoint should say.

    Traced as in the SavedModel, so that both go through the same graph
    optimizations.
    """
    serve = serving_function(endpoints(model)[0], Limits())
    answer = serve(tf.constant(token_ids))
    return {name: x.numpy() for name, x in answer.items()}


def _run_elsewhere(version_path, token_ids):
    with tempfile.TemporaryDirectory() as folder:
        request = os.path.join(folder, "token_ids.npy")
        response = os.path.join(folder, "answers.npz")
        np.save(request, token_ids)
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
