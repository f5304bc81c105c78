"""Tracing functions into graphs, and where these will run."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import tensorflow as tf

PLATFORMS = ("cpu", "gpu", "tpu")

_lowered_for: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "platform", default=None
)


def traced(function: Callable, jit_compile: bool = False) -> Callable:
    """A function that runs as a graph, one for all shapes where it can.

    Args:
        function: takes and returns structures of tensors.
        jit_compile: bool. XLA compiles it, once for each set of shapes.
    """
    return tf.function(
        function,
        autograph=False,
        reduce_retracing=True,
        jit_compile=jit_compile,
    )


@contextlib.contextmanager
def lowering_for(platform: str) -> Iterator[None]:
    """Traces here are for another platform than TensorFlow's own devices.

    Args:
        platform: `"cpu"`, `"gpu"` or `"tpu"`.
    """
    if platform not in PLATFORMS:
        raise ValueError(
            f"`platform` must be one of {PLATFORMS}. Received: "
            f"platform={platform!r}"
        )
    token = _lowered_for.set(platform)
    try:
        yield
    finally:
        _lowered_for.reset(token)


def platform() -> str:
    """Where what is being traced will run: `"cpu"`, `"gpu"` or `"tpu"`.

    TensorFlow uses a TPU through its strategy alone, within which steps are
    traced, and places operations on a GPU that it sees.
    """
    lowered_for = _lowered_for.get()
    if lowered_for is not None:
        return lowered_for
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "tpu"
    return "gpu" if tf.config.get_visible_devices("GPU") else "cpu"


def for_tpu() -> bool:
    """Whether what is being traced will run on a TPU."""
    return platform() == "tpu"


def is_symbolic(x) -> bool:
    """Whether it is a symbolic tensor, which has no value while tracing."""
    return tf.is_symbolic_tensor(x)
