"""Compiles a TensorFlow function for a TPU, without having one.

TensorFlow on the CPU lowers the function to HLO, jaxlib makes StableHLO of
that, and libtpu compiles it ahead of time for a named topology, such as
`v5e:1x1` or `v2:2x2`. Shapes must be static; variables that the function uses
become parameters of the program.

Sizes of memory are those of the real chip. Operations and bytes accessed
count a loop's body once. Milliseconds are the compiler's estimate, with the
limits that `hlo.py` names.

Uses private names of jax: `setup.cfg` pins its version.
"""

import os

# Read when TensorFlow, jax and libtpu are imported. The first keep libtpu
# from asking a TPU's host for what it is.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # libtpu locks the chips it would use. Compiling uses none, so two
    # compilations need not wait for each other.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import functools  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402

import hlo  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from jax._src import compiler  # noqa: E402
from jax._src.lib import _jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.interpreters import mlir  # noqa: E402

# Updates of variables come with this operation, which StableHLO lacks.
_COPY = re.compile(r"mhlo\.copy (%[\w#]+) : (tensor<[^>]*>)")
MIB = 2**20


def lower(function, *specs):
    """Lowers a function to StableHLO.

    Args:
        function: Called with tensors in the structure of `specs`.
        *specs: `tf.TensorSpec`s of static shape, may be nested.

    Returns:
        The module, as bytes.
    """

    def flat(*tensors):
        return function(*tf.nest.pack_sequence_as(specs, tensors))

    compiled = tf.function(flat, jit_compile=True, autograph=False)
    make = compiled.experimental_get_compiler_ir(*tf.nest.flatten(specs))
    hlo = make(stage="hlo_serialized", platform_name="CPU")
    return _jax.mlir.hlo_to_stablehlo(hlo)


def as_text(module):
    """The module's text, as the TPU compiler takes it."""
    with mlir.make_ir_context():
        text = str(mlir.ir.Module.parse(module))
    return _COPY.sub(r"stablehlo.reshape \1 : (\2) -> \2", text)


def compile_module(module, topology):
    """The module, compiled for one core of a topology."""
    device = _topology(topology).devices[0]
    options = compiler.get_compile_options(
        num_replicas=1,
        num_partitions=1,
        device_assignment=np.array([[device.id]]),
    )
    text = as_text(module)
    with mlir.make_ir_context():
        return device.client.compile(
            mlir.ir.Module.parse(text), _jax.DeviceList((device,)), options
        )


@functools.cache
def _topology(name):
    return topologies.get_topology_desc(platform="tpu", topology_name=name)


def describe(compiled, topology):
    """Sizes in MiB, operations and bytes accessed, the estimated time in ms,
    and what is not in it: rows that are gathered, and sorts."""
    memory = compiled.get_compiled_memory_stats()
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "arguments": memory.argument_size_in_bytes / MIB,
        "outputs": memory.output_size_in_bytes / MIB,
        "temporaries": memory.temp_size_in_bytes / MIB,
        "flops": cost.get("flops"),
        "bytes": cost.get("bytes accessed"),
        **_estimates(program_text(compiled), topology.split(":")[0]),
    }


def _estimates(text, chip):
    if text is None:
        return dict.fromkeys(("milliseconds", "gathered", "sorts"))
    return {
        "milliseconds": hlo.milliseconds(text, chip),
        "gathered": hlo.gathered_rows(text),
        "sorts": hlo.unpriced(text).get("sort", 0),
    }


def program_text(compiled):
    """The compiled program, as `hlo.py` reads it; None where jaxlib cannot.

    For a v6e libtpu writes operations that run on its sparse cores, whose
    operands jaxlib counts otherwise.
    """
    try:
        return compiled.hlo_modules()[0].to_string()
    except jax.errors.JaxRuntimeError as error:
        print(f"no text of the program: {error}", file=sys.stderr)
        return None
