"""The training step, compiled for a TPU without having one.

    pip install -e ".[cpu,dev,tpu-compile]"
    python benchmarks/run.py tpu [--cases depth enwik8] [--blocks 4 12]

Prints what the TPU's compiler says of a step of Adam's on a language model:
temporaries and arguments (weights, optimizer and tokens) in MiB, operations,
bytes accessed, seconds to compile. Weights and optimizer are updated in
place, so a step needs temporaries and arguments.

`depth` compares numbers of blocks, `dropout` the smaller one with and
without dropout; `half-million` and `enwik8` are large models beside the
memory of a chip. About a minute a block.
"""

import time
import unittest.mock

import half_million
import reporting

CASES = ("depth", "dropout", "half-million", "enwik8")
KEYS = ("name", "topology")
QUICK = {"cases": ["depth"], "blocks": [1], "length": 64}
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
OPTIONS = {
    "cases": list(CASES),
    "blocks": [4, 12],
    "length": (16384, "of depth and dropout"),
    "topology": ("v5e:1x1", "of depth and dropout"),
}


# === Cases ===


def cases(options):
    """Those asked for; depth and dropout share one."""
    found = []
    if "depth" in options.cases:
        found += [small_case(options, n, DROPOUT) for n in options.blocks]
    if "dropout" in options.cases:
        least = min(options.blocks)
        found += [small_case(options, least, rate) for rate in (DROPOUT, 0.0)]
    if "half-million" in options.cases:
        found.append(case("half a million tokens", "v2:2x2", HALF_MILLION, 8))
    if "enwik8" in options.cases:
        found.append(case("enwik8, 65,536 tokens", "v5e:1x1", ENWIK8, 16))
    return {each["name"]: each for each in found}.values()


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
    """A case; `limit` is the chip's memory in GiB."""
    return {"name": name, "topology": topology, "model": model, "limit": limit}


# === Compiling ===


def work(case):
    """What the compiler says of a case, and the seconds it took."""
    # Before all others: it sets the environment that they read.
    import tpu_compiler

    start = time.perf_counter()
    module = lower(case["model"])
    lowered = time.perf_counter()
    compiled = tpu_compiler.compile_module(module, case["topology"])
    return {
        **tpu_compiler.describe(compiled),
        "lowering": lowered - start,
        "compiling": time.perf_counter() - lowered,
    }


def lower(model, batch_size=1):
    """A model's train step, as traced for a TPU.

    There is no TPU here, and so no strategy of one to trace in. To whoever
    asks, in any revision of the package, the strategy that there is passes
    for one.
    """
    import tensorflow as tf
    import tpu_compiler

    step = train_step(model, batch_size)
    strategy = type(tf.distribute.get_strategy())
    with unittest.mock.patch.object(tf.distribute, "TPUStrategy", strategy):
        return tpu_compiler.lower(*step)


def train_step(arguments, batch_size):
    """A step, and the specs of its inputs."""
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

    shape = batch_size, arguments["max_sequence_length"]
    spec = tf.TensorSpec(shape, tf.int32)
    return step, spec, spec


# === Tables and picture ===


def tables(records, options):
    columns = {
        "train step": "{name}",
        "topology": "{topology}",
        "temporaries, MiB": "{temporaries:.1f}",
        "arguments, MiB": "{arguments:.1f}",
        "Gflop": "{Gflop}",
        "GB accessed": "{GB}",
        "lowering, s": "{lowering:.0f}",
        "compiling, s": "{compiling:.0f}",
    }
    shown = [
        {
            **each,
            "Gflop": billions(each["flops"]),
            "GB": billions(each["bytes"]),
        }
        for each in records
    ]
    yield "Compiled for a TPU", *reporting.rows(shown, columns)
    compared = [*comparisons(records), *fits(records)]
    if compared:
        yield "Compared", ("what", "value"), compared


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
    ratio = reporting.ratio(record["temporaries"], reference["temporaries"])
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


def plot(records, options):
    """A bar of temporaries for each case."""
    bars = {
        f"{each['name']}\n{each['topology']}": each["temporaries"]
        for each in records
    }
    return reporting.draw_bars(
        bars, "MiB", "Temporaries of a train step on a TPU"
    )
