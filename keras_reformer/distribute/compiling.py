"""Options of XLA's compilers for an engine's programs."""

import functools
import os

import jax
import jax.numpy as jnp

# On a CPU jax's defaults cost a train step an eighth of its time beside
# TensorFlow's XLA (docs/benchmarks.md, "On jax's engine").
_CPU = {
    # Products one by one: fused with what surrounds them, and sums fused with
    # what they are of, are slower than the code that XLA makes of them.
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    ),
    # As TensorFlow compiles: the maximum of NaN and a number may be either.
    "xla_cpu_enable_fast_min_max": True,
}


def compiler_options(platform):
    """Options for `jax.jit`, of those that this jax has.

    What the environment's `XLA_FLAGS` name is left to them.

    Args:
        platform: as `ops.tracing` names it.

    Returns:
        Dict of options by name.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    given = {flag.partition("=")[0].lstrip("-") for flag in flags}
    options = _CPU if platform == "cpu" else {}
    return {
        name: value
        for name, value in options.items()
        if name not in given and _is_known(name, value)
    }


@functools.cache
def _is_known(name, value):
    """Whether jax compiles with an option: versions come and go."""
    device = jax.local_devices(backend="cpu")[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding)
    program = jax.jit(lambda x: x).lower(scalar)
    try:
        program.compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True
