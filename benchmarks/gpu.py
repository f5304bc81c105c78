"""Our layers and a train step on a GPU whose machine has jax alone.

    python benchmarks/gpu.py --export FOLDER     # TensorFlow for a CPU, and jax
    python benchmarks/gpu.py --measure FOLDER    # jax; PyTorch where it is
    python benchmarks/gpu.py --count FOLDER      # jax, no GPU

`--export` traces for a GPU (`tracing.lowering_for`) and writes each program as
StableHLO, which jax compiles for the GPU that it finds:

- one LSH layer, forward and forward+backward, at 4,096, 16,384 and 65,536
  tokens, in float32 and mixed_bfloat16,
- a train step of Adam's on a language model of 12 blocks at 16,384 tokens.

`--measure` prints the median of their seconds. Where PyTorch sees the GPU too,
its fused exact attention (`scaled_dot_product_attention`) and, where there is
`transformers`, that one's Reformer layer run beside them, of the same size and
type. Inputs and weights are random.

`--count` compiles the programs for a CPU and counts the operations that would
be started one by one, with all trips of loops, and the same for tiles of a
CPU's size: what a GPU gains by large ones. A GPU's compiler fuses otherwise;
the trips of loops are the same.

Copy the folder `benchmarks/` and FOLDER to the GPU's machine.
"""

import argparse
import json
import lzma
import pathlib
import statistics
import sys
import time

import hlo
import language_model
import reporting

LENGTHS = (4096, 16384, 65536)
DTYPES = ("float32", "bfloat16")
MODES = ("forward", "forward+backward")
MODEL = {
    "vocabulary_size": 258,
    "num_layers": 12,
    "num_heads": 8,
    "hidden_dim": 512,
    "intermediate_dim": 2048,
    "num_hashes": 4,
    "max_sequence_length": 16384,
}
QUICK_MODEL = {
    **MODEL,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 256,
}
PEERS = ("torch sdpa", "transformers Reformer")
CASES = "cases.json"
STD = 0.02


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    for name in ("export", "measure", "count"):
        add(f"--{name}", type=pathlib.Path, metavar="FOLDER")
    add("--quick", action="store_true", help="small programs")
    add("--lengths", type=int, nargs="*", default=LENGTHS, help="of the layer")
    add("--dtypes", nargs="*", default=DTYPES, choices=DTYPES)
    add("--repeats", type=int, default=20, help="timed calls of each")
    add("--peers", nargs="*", default=PEERS, choices=PEERS)
    options = parser.parse_args()
    if options.export:
        export_all(options.export, all_cases(options))
    if options.count:
        show_counts(options.count)
    if options.measure:
        measure_all(options.measure, options.repeats, options.peers)


# === Export: TensorFlow and jax ===


def all_cases(options):
    """Layers and models as they are asked for."""
    lengths, model = options.lengths, MODEL
    if options.quick:
        lengths, model = (256,), QUICK_MODEL
    cases = [
        {
            "length": length,
            "dtype": dtype,
            "mode": mode,
            # transformers' is told of ours, which needs TensorFlow.
            "num_buckets": language_model.num_buckets(length),
        }
        for length in lengths
        for dtype in options.dtypes
        for mode in MODES
    ]
    return cases + [
        {"dtype": dtype, "model": model} for dtype in options.dtypes
    ]


def export_all(folder, cases):
    """Writes all programs, and what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        print(f"exports {label(case)}", flush=True)
        for name, tokens in (("file", None), ("small tiles", 4096)):
            # The same in a CPU's tiles, to be counted beside it.
            content = lzma.compress(export_case(case, tokens).serialize())
            case[name] = f"{number}{'' if tokens is None else '-small'}.xz"
            (folder / case[name]).write_bytes(content)
    (folder / CASES).write_text(json.dumps(cases, indent=1))


def export_case(case, tokens_in_tile=None):
    """A case's program, as `jax.export.Exported`."""
    import keras

    import keras_reformer

    sys.path.append(str(pathlib.Path(__file__).parent / "learning"))
    import programs

    policy = "mixed_bfloat16" if case["dtype"] == "bfloat16" else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    keras_reformer.set_tokens_in_tile(tokens_in_tile)
    make = model_step if "model" in case else layer_step
    try:
        return programs.export_for_gpu(*make(case, programs))
    finally:
        keras_reformer.set_tokens_in_tile(None)
        keras.config.set_dtype_policy(before)


def layer_step(case, programs):
    """One layer's passes, as a function of weights and tokens."""
    import contenders
    import jax
    import keras
    import tensorflow as tf

    shape = (1, case["length"], contenders.WIDTH)
    layer = contenders.make_layer(shape)
    x = jax.ShapeDtypeStruct(shape, case["dtype"])
    state = layer.non_trainable_variables

    def call(weights, x, training):
        mapping = list(zip(layer.trainable_variables, weights, strict=True))
        mapping += [(variable, variable.value) for variable in state]
        with keras.StatelessScope(state_mapping=mapping):
            return layer(x, training=training)

    def forward(weights, x):
        return call(weights, x, False)

    def forward_and_backward(weights, x):
        with tf.GradientTape() as tape:
            tape.watch([weights, x])
            y = tf.cast(call(weights, x, True), tf.float32)
            loss = tf.reduce_sum(y * y)
        return tape.gradient(loss, [weights, x])

    function = forward if case["mode"] == "forward" else forward_and_backward
    return function, (programs.shapes(layer.trainable_variables), x)


def model_step(case, programs):
    """A train step, as a function of all values and a batch."""
    import jax
    import keras

    import keras_reformer

    model = keras_reformer.ReformerCausalLM(**case["model"], seed=0)
    model.compile(keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    tokens = jax.ShapeDtypeStruct(
        (1, case["model"]["max_sequence_length"]), "int32"
    )
    return programs.training_step(model), (
        programs.shapes(model.trainable_variables),
        programs.shapes(model.non_trainable_variables),
        (tokens, tokens),
        programs.shapes(model.optimizer.variables),
    )


# === Compiling: jax ===


def compile_case(folder, case, name="file"):
    """A stored program, compiled for the device that jax finds, and random
    arguments for it."""
    import jax
    from jax import export

    jax.config.update("jax_enable_x64", True)
    content = lzma.decompress((folder / case[name]).read_bytes())
    exported = export.deserialize(bytearray(content))
    arguments = jax.tree.unflatten(
        exported.in_tree,
        [random_values(i, each) for i, each in enumerate(exported.in_avals)],
    )
    args, kwargs = arguments
    return jax.jit(exported.call).lower(*args, **kwargs).compile(), args


def random_values(number, aval):
    """Small numbers; bytes where they are integers. Above zero, since some
    are the optimizer's second moments."""
    import jax
    import numpy as np

    rng = np.random.default_rng(number)
    if np.issubdtype(aval.dtype, np.integer):
        return jax.device_put(rng.integers(1, 256, aval.shape, aval.dtype.type))
    values = abs(rng.normal(0, STD, aval.shape))
    return jax.device_put(values.astype(aval.dtype))


def show_counts(folder):
    rows = []
    for case in json.loads((folder / CASES).read_text()):
        counts = [
            hlo.kernels(compile_case(folder, case, name)[0].as_text())
            for name in ("file", "small tiles")
        ]
        rows.append((label(case), *counts, reporting.ratio(*counts[::-1])))
        print(*rows[-1], flush=True)
    header = ("program", "GPU's tiles", "CPU's tiles", "CPU's / GPU's")
    reporting.report([("operations started one by one", header, rows)], None)


# === Measuring: jax, and PyTorch where it is ===


def measure_all(folder, repeats, peers):
    import jax

    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    rows = []
    for case in json.loads((folder / CASES).read_text()):
        compiled, arguments = compile_case(folder, case)
        seconds = {"ours": time_jax(compiled, arguments, repeats)}
        if "model" not in case:
            for peer in peers:
                seconds[peer] = time_peer(peer, case, repeats)
        rows.append(row(case, seconds, peers))
        print(*rows[-1], flush=True)
    header = ("program", "ours, ms", *(f"{peer} / ours" for peer in peers))
    reporting.report([("median of a call", header, rows)], None)


def row(case, seconds, peers):
    ours = seconds["ours"]
    ratios = (reporting.ratio(seconds.get(peer), ours) for peer in peers)
    return label(case), f"{1e3 * ours:.2f}", *ratios


def time_jax(compiled, arguments, repeats):
    import jax

    return median(lambda: jax.block_until_ready(compiled(*arguments)), repeats)


def time_peer(name, case, repeats):
    """The median, or None where PyTorch, its GPU or the peer is missing."""
    try:
        import torch

        if not torch.cuda.is_available():
            return None
        import contenders

        step = make_peer(contenders.CONTENDERS[name].make, case, torch)
        return median(step, repeats)
    except ImportError as error:
        print(f"{name}: left out, {error}")
        return None
    except torch.OutOfMemoryError as error:
        print(f"{name}, {label(case)}: {error}")
        return None


def make_peer(make, case, torch):
    """A contender's step on the GPU, in a case's type."""
    torch.set_default_device("cuda")
    torch.set_default_dtype(getattr(torch, case["dtype"]))
    threads = torch.get_num_threads()
    return make({**case, "batch": 1, "threads": threads, "wait": wait})


def wait(tensor):
    import torch

    torch.cuda.synchronize()


def median(step, repeats):
    """Of the seconds of calls, after two that compile and settle."""
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def label(case):
    if "model" in case:
        model = case["model"]
        length = model["max_sequence_length"]
        blocks = model["num_layers"]
        return f"train step, {blocks} blocks, {length:,}, {case['dtype']}"
    return f"layer, {case['mode']}, {case['length']:,}, {case['dtype']}"


if __name__ == "__main__":
    main()
