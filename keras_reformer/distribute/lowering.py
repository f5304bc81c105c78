"""TensorFlow functions as parts of jax's programs."""

import importlib

import jax
import tensorflow as tf
from jax import export
from jax.experimental import jax2tf

from keras_reformer.ops.tracing import lowering_for


def lower(function, arguments, platform):
    """A function that jax traces, of what a TensorFlow function computes.

    TensorFlow's build for CPUs lowers to StableHLO that jax compiles for
    whatever it has: this library's functions have no operation that one
    platform alone knows.

    Args:
        function: takes and returns structures of tensors, has no side effects.
        arguments: tuple of structures of `jax.ShapeDtypeStruct`.
        platform: what it will run on, as `ops.tracing` names it.

    Returns:
        A pair: the function of jax arrays, and a structure of
        `jax.ShapeDtypeStruct` like its results.
    """
    called = jax2tf.call_tf(
        tf.function(function, autograph=False), has_side_effects=False
    )
    with lowering_for(platform), wide_integers():
        exported = export.export(
            jax.jit(called),
            platforms=["cpu"],
            disabled_checks=[export.DisabledSafetyCheck.platform()],
        )(*arguments)
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return exported.call, jax.tree.map(shape_of, results)


def wide_integers():
    """A context in which jax has the 64 bits of seeds and counters."""
    # An old jax has it among its experiments alone.
    enable_x64 = getattr(jax, "enable_x64", None)
    if enable_x64 is None:
        enable_x64 = importlib.import_module("jax.experimental").enable_x64
    return enable_x64(True)


def shape_of(x):
    """The `jax.ShapeDtypeStruct` of an array or a variable."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
