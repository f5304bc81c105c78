"""The training step, compiled for a TPU without having one.

    pip install -e ".[cpu,plot,tpu-compile]"
    python benchmarks/tpu.py [--cases depth enwik8] [--blocks 4 12]

Prints what the TPU's compiler says of a step of Adam's on a language model:
temporaries and arguments (weights, optimizer and tokens) in MiB, operations,
bytes accessed, seconds to compile. Weights and optimizer are updated in
place, so a step needs temporaries and arguments.

`depth` compares numbers of blocks, `dropout` the smaller one with and
without dropout; `half-million` and `enwik8` are large models beside the
memory of a chip. Each case is compiled in a process of its own; one that
fails says why. About a minute a block. Saves `docs/tpu.png`.
"""

import argparse
import importlib.util
import json
import pathlib
import time
import unittest.mock

import half_million
import measuring

CASES = ("depth", "dropout", "half-million", "enwik8")
PACKAGES = ("tensorflow", "jax", "libtpu")
DROPOUT = 0.1
SMALL = {
    "vocabulary_size": 258,
    "num_heads": 4,
    "hidden_dim": 256,
    "intermediate_dim": 512,
    "num_hashes": 4,
    "chunk_length": 64,
}
HALF_MILLION = {
    **half_million.MODEL,
    "vocabulary_size": 320,
    "max_sequence_length": half_million.LENGTH,
}
ENWIK8 = {
    "vocabulary_size": 258,
    "num_layers": 12,
    "num_heads": 8,
    "key_dim": 128,
    "hidden_dim": 1024,
    "intermediate_dim": 4096,
    "max_sequence_length": 65536,
    "attention_layers": ["local", "local", "lsh", "local"],
    "local_chunk_length": 128,
    "chunk_length": 256,
    "num_hashes": 2,
    "num_buckets": 512,
    "dropout": 0.2,
    "axial_shape": [128, 512],
    "axial_dims": [256, 768],
}


# === Cases ===


def cases(options):
    """By name, the cases asked for; depth and dropout share one."""
    found = {}
    if "depth" in options.cases:
        for blocks in options.blocks:
            found |= small_case(options, blocks, DROPOUT)
    if "dropout" in options.cases:
        for dropout in (DROPOUT, 0.0):
            found |= small_case(options, min(options.blocks), dropout)
    if "half-million" in options.cases:
        found |= case("half a million tokens", "v2:2x2", HALF_MILLION, 8)
    if "enwik8" in options.cases:
        found |= case("enwik8, 65,536 tokens", "v5e:1x1", ENWIK8, 16)
    return found


def small_case(options, blocks, dropout):
    name = f"{blocks} blocks, " + (
        f"dropout {dropout}" if dropout else "no dropout"
    )
    model = {
        **SMALL,
        "num_layers": blocks,
        "max_sequence_length": options.length,
        "dropout": dropout,
    }
    return case(name, options.topology, model)


def case(name, topology, model, limit=None):
    """A case by its name; `limit` is the chip's memory in GiB."""
    return {
        name: {
            "name": name,
            "topology": topology,
            "model": model,
            "limit": limit,
        }
    }


# === Compiling ===


def work(case):
    """What a worker does: prints its answer, or in one line why none."""
    try:
        measuring.answer(compile_step(case))
    except Exception as error:
        lines = str(error).strip().splitlines() or ["nothing said"]
        why = f"{type(error).__name__}: {lines[0][:300]}"
        measuring.answer({"error": why})


def compile_step(case):
    """What the compiler says of a case, and the seconds it took."""
    # Before all others: it sets the environment that they read.
    import tpu_compiler

    from keras_reformer.ops import tracing

    start = time.perf_counter()
    # There is no TPU here, and so no strategy of one to trace in.
    with unittest.mock.patch.object(tracing, "for_tpu", lambda: True):
        module = tpu_compiler.lower(*train_step(case["model"]))
    lowered = time.perf_counter()
    compiled = tpu_compiler.compile_module(module, case["topology"])
    return {
        **tpu_compiler.describe(compiled),
        "lowering": lowered - start,
        "compiling": time.perf_counter() - lowered,
    }


def train_step(arguments):
    """A step of one sequence, and the specs of its inputs."""
    import keras
    import tensorflow as tf

    import keras_reformer

    model = keras_reformer.ReformerCausalLM(**arguments, seed=0)
    optimizer = keras.optimizers.Adam()
    model.compile(optimizer)
    # Its variables cannot be made while the step is lowered.
    optimizer.build(model.trainable_variables)

    def step(tokens, labels):
        return model.train_step((tokens, labels))["loss"]

    spec = tf.TensorSpec((1, arguments["max_sequence_length"]), tf.int32)
    return step, spec, spec


def compile_all(options):
    """Records of all cases, each compiled in a fresh process."""
    records = []
    for name, case in cases(options).items():
        print(f"{name} ({case['topology']}): compiling", flush=True)
        try:
            found = measuring.run_worker(
                __file__, case, timeout=options.timeout
            )
            if "error" in found:
                raise measuring.WorkerError(found["error"])
        except measuring.WorkerError as error:
            print(f"{name} failed, {error}", flush=True)
            continue
        print(
            f"{name}: temporaries {found['temporaries']:.1f} MiB, "
            f"{found['lowering'] + found['compiling']:.0f} s",
            flush=True,
        )
        records.append({**case, **found})
        measuring.save_json(options.json, records)
    return records


# === Tables and picture ===


def tables(records):
    header = (
        "train step",
        "topology",
        "temporaries, MiB",
        "arguments, MiB",
        "Gflop",
        "GB accessed",
        "lowering, s",
        "compiling, s",
    )
    yield "Compiled for a TPU", header, [row(record) for record in records]
    compared = [*comparisons(records), *fits(records)]
    if compared:
        yield "Compared", ("what", "value"), compared


def row(record):
    return (
        record["name"],
        record["topology"],
        f"{record['temporaries']:.1f}",
        f"{record['arguments']:.1f}",
        billions(record["flops"]),
        billions(record["bytes"]),
        f"{record['lowering']:.0f}",
        f"{record['compiling']:.0f}",
    )


def billions(value):
    """For a table; empty where the compiler said nothing."""
    return "" if value is None else f"{value / 1e9:.1f}"


def comparisons(records):
    """Ratios of temporaries: of depths, and with and without dropout."""
    small = [record for record in records if record["limit"] is None]
    dropped = [each for each in small if each["model"]["dropout"]]
    by_blocks = {each["model"]["num_layers"]: each for each in dropped}
    if not by_blocks:
        return
    least = min(by_blocks)
    for blocks, record in by_blocks.items():
        if blocks != least:
            yield ratio_row(record, by_blocks[least])
    for record in small:
        same = by_blocks.get(record["model"]["num_layers"])
        if same and not record["model"]["dropout"]:
            yield ratio_row(same, record)


def ratio_row(record, reference):
    ratio = measuring.ratio(record["temporaries"], reference["temporaries"])
    return f"temporaries: {record['name']} / {reference['name']}", ratio


def fits(records):
    """What large models need beside a chip's memory."""
    for record in records:
        if record["limit"]:
            need = (record["temporaries"] + record["arguments"]) / 2**10
            yield (
                f"temporaries + arguments: {record['name']}",
                f"{need:.2f} of {record['limit']} GiB",
            )


def plot(records, picture):
    """A bar of temporaries for each case."""
    if not importlib.util.find_spec("matplotlib"):
        print("no picture: no matplotlib here; --load draws stored results")
        return
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        figsize=(7, 1 + 0.6 * len(records)), layout="constrained"
    )
    names = [f"{each['name']}\n{each['topology']}" for each in records]
    bars = axes.barh(names, [each["temporaries"] for each in records])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="MiB", title="Temporaries of a train step on a TPU")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(picture, dpi=120)
    print(f"picture: {picture}")


# === Command ===


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cases", nargs="+", choices=CASES, default=list(CASES))
    add("--blocks", type=int, nargs="+", default=[4, 12])
    add("--length", type=int, default=16384, help="of depth and dropout")
    add("--topology", default="v5e:1x1", help="of depth and dropout")
    add("--timeout", type=float, help="seconds that a case may take")
    add("--json", type=pathlib.Path, help="where to store raw results")
    add("--markdown", type=pathlib.Path, help="where to store the tables")
    add("--picture", type=pathlib.Path, default=measuring.DOCS / "tpu.png")
    add("--load", type=pathlib.Path, nargs="+", help="show stored results")
    add("--worker", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def complain_of_missing():
    for package in PACKAGES:
        if not importlib.util.find_spec(package):
            raise SystemExit(
                f"no {package} here; "
                'pip install "keras-reformer[cpu,plot,tpu-compile]"'
            )


def main():
    chosen = options()
    if chosen.worker:
        work(chosen.worker)
        return
    records = measuring.load_json(chosen.load)
    if not chosen.load:
        complain_of_missing()
        records = compile_all(chosen)
    if records:
        measuring.report(list(tables(records)), chosen.markdown)
        plot(records, chosen.picture)


if __name__ == "__main__":
    main()
