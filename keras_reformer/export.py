"""SavedModels that TensorFlow Serving runs, and the proof that they do."""

import json
import os
import platform
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

_METADATA_FILE = "metadata.json"
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
logits = {
    "serve": loaded.serve(token_ids)["logits"],
    "serving_default": loaded.signatures["serving_default"](
        token_ids=token_ids
    )["logits"],
}
with open(response, "wb") as file:
    np.savez(file, **{name: value.numpy() for name, value in logits.items()})
"""


def export_saved_model(
    model: keras.Model, path: str, metadata: dict | None = None
) -> str:
    """Exports a model in the folder layout of TensorFlow Serving.

    It has the endpoints `serve` and `serving_default`: `token_ids`, int32 of
    shape `(batch, length)`, to `{"logits": ...}`, float32 of shape `(batch,
    length, vocabulary_size)`. Nothing in it is compiled for one kind of
    device. A `metadata.json` beside it holds configuration and versions.

    Args:
        model: A `ReformerCausalLM`, or another model of token ids to logits.
        path: str. The folder of this model's versions. The new one gets the
            next free integer; earlier ones stay as they are.
        metadata: dict. More to write to `metadata.json`.

    Returns:
        version_path: str. The folder written, `path/VERSION`.

    Raises:
        ValueError: if `path` is a file.

    Example:
    ```python
    export_saved_model(model, "saved_models/demo")  # "saved_models/demo/1"
    ```
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(
            "`path` must be a folder or not exist yet, and it is a file. "
            f"Received: path={path!r}"
        )
    os.makedirs(path, exist_ok=True)
    # A server that polls `path` ignores names that are no integers, so it
    # never sees half a version.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path) as folder:
        written = os.path.join(folder, "version")
        _write(model, written)
        _write_metadata(model, written, metadata)
        return _move_to_next_version(written, path)


def verify_saved_model(
    version_path: str, model: keras.Model, token_ids: np.ndarray
) -> float:
    """Compares a SavedModel, loaded by TensorFlow alone, with its model.

    A fresh Python process in which neither Keras nor this package can be
    imported loads it and computes the logits at both endpoints.

    Args:
        version_path: str. As `export_saved_model` returns it.
        model: The model that was exported.
        token_ids: int32 array of shape `(batch, length)`.

    Returns:
        difference: float. The largest absolute difference of the logits.

    Raises:
        ValueError: if there is no SavedModel.
        RuntimeError: if it is larger than 1e-5 of the largest logit, or if
            the process fails.
    """
    if not tf.saved_model.contains_saved_model(version_path):
        raise ValueError(
            "There is no SavedModel to verify. Expected the folder that "
            "`export_saved_model` returned. Received: "
            f"version_path={version_path!r}"
        )
    token_ids = np.asarray(token_ids, np.int32)
    expected = _endpoint(model)(tf.constant(token_ids))["logits"].numpy()
    received = _run_elsewhere(version_path, token_ids)
    difference = max(
        float(np.max(np.abs(logits - expected))) for logits in received
    )
    allowed = _TOLERANCE * float(np.max(np.abs(expected)))
    # Written so that a NaN fails too.
    if not difference <= allowed:
        raise RuntimeError(
            "The exported model gives other logits than the model. Expected "
            f"a difference of at most {allowed:.1e}. Received: "
            f"difference={difference:.1e}, version_path={version_path!r}"
        )
    return difference


def runtime_versions() -> dict[str, str]:
    """Returns the versions of Python, Keras, TensorFlow and NumPy."""
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }


def _endpoint(model):
    def serve(token_ids):
        logits = model(token_ids, training=False)
        return {"logits": tf.cast(logits, tf.float32)}

    # Traced as in the SavedModel, so that both go through the same graph
    # optimizations.
    spec = tf.TensorSpec((None, None), tf.int32, name="token_ids")
    return tf.function(serve, input_signature=[spec])


def _write(model, folder):
    archive = keras.export.ExportArchive()
    archive.track(model)
    serve = _endpoint(model)
    serve.get_concrete_function()
    # Keras adds the signature `serving_default` for the first endpoint.
    archive.add_endpoint("serve", serve)
    archive.write_out(folder, verbose=False)


def _write_metadata(model, folder, metadata):
    content = {
        "name": model.name,
        "config": model.get_config(),
        "versions": runtime_versions(),
        **(metadata or {}),
    }
    path = os.path.join(folder, _METADATA_FILE)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def _move_to_next_version(written, path):
    taken = [int(name) for name in os.listdir(path) if name.isdecimal()]
    version_path = os.path.join(path, str(max(taken, default=0) + 1))
    os.rename(written, version_path)
    return version_path


def _run_elsewhere(version_path, token_ids):
    with tempfile.TemporaryDirectory() as folder:
        request = os.path.join(folder, "token_ids.npy")
        response = os.path.join(folder, "logits.npz")
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
        with np.load(response) as logits:
            return [logits[name] for name in logits.files]
