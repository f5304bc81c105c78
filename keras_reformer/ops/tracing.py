"""Tracing functions into graphs, and where these will run."""

from collections.abc import Callable

import tensorflow as tf


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


def for_tpu() -> bool:
    """Whether what is being traced will run on a TPU.

    A TPU is used through its strategy alone, within which steps are traced.
    """
    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_symbolic(x) -> bool:
    """Whether it is a symbolic tensor, which has no value while tracing."""
    return tf.is_symbolic_tensor(x)
