"""What must be in place before the rest of the package can be imported."""

import importlib.util

_NO_TENSORFLOW = """keras_reformer needs TensorFlow, and it is not installed. \
Install it through one of the package's extras:
  pip install "keras-reformer[cpu]"   (CPU)
  pip install "keras-reformer[gpu]"   (NVIDIA GPU)
  pip install "keras-reformer[tpu]"   (TPU)"""


def check() -> None:
    """Checks that TensorFlow is installed and that Keras runs on it.

    TensorFlow itself is looked for, not imported.

    Raises:
        ImportError: if TensorFlow is not installed (the message names the
            extras that install it), or if Keras runs on another backend.
    """
    spec = importlib.util.find_spec("tensorflow")
    # A folder left behind by an uninstall is found too, without an origin.
    if spec is None or spec.origin is None:
        raise ImportError(_NO_TENSORFLOW)
    # Keras imports its backend, so it cannot be imported before the check.
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            "keras_reformer runs on Keras's TensorFlow backend. Set the "
            "environment variable KERAS_BACKEND=tensorflow before Keras is "
            f"imported. Received: keras.backend.backend()={backend!r}"
        )
