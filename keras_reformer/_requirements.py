"""What must be in place before the rest of the package can be imported."""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator

_NO_TENSORFLOW = """keras_reformer needs TensorFlow, and it is not installed. \
Install it through one of the package's extras:
  pip install "keras-reformer[cpu]"   (CPU)
  pip install "keras-reformer[gpu]"   (NVIDIA GPU)
  pip install "keras-reformer[tpu]"   (TPU)"""

# No requirement of the package, which has an extra for each device.
OLDEST_TENSORFLOW = (2, 20)


def check() -> None:
    """Checks that TensorFlow is installed and that Keras runs on it.

    TensorFlow itself is looked for, not imported.

    Raises:
        ImportError: if TensorFlow is not installed (the message names the
            extras that install it) or too old, or if Keras runs on another
            backend.
    """
    spec = importlib.util.find_spec("tensorflow")
    # A folder left behind by an uninstall is found too, without an origin.
    if spec is None or spec.origin is None:
        raise ImportError(_NO_TENSORFLOW)
    # Keras imports its backend, so it cannot be imported before the check.
    with _held_back_stderr() if _is_command() else contextlib.nullcontext():
        import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            "keras_reformer runs on Keras's TensorFlow backend. Set the "
            "environment variable KERAS_BACKEND=tensorflow before Keras is "
            f"imported. Received: keras.backend.backend()={backend!r}"
        )
    _check_version(sys.modules["tensorflow"].__version__)


def _check_version(version: str) -> None:
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TENSORFLOW:
        oldest = ".".join(map(str, OLDEST_TENSORFLOW))
        raise ImportError(
            f"keras_reformer needs TensorFlow {oldest} or newer. Received: "
            f"tensorflow.__version__={version!r}"
        )


def _is_command() -> bool:
    """Whether this process runs the `keras-reformer` command."""
    names = {os.path.basename(argument) for argument in sys.orig_argv[1:3]}
    return bool(names & {"keras-reformer", "keras_reformer.cli"})


@contextlib.contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Shows what is written to stderr only if what writes it fails.

    TensorFlow 2.21 writes some lines before it reads its log level, from
    C++, so that only the file descriptor can stop them. A command's errors
    are one line.
    """
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
