"""Training steps, compiled for a TPU without having one.

    pip install -e ".[cpu,dev,tpu-compile]"
    python benchmarks/run.py tpu [--cases depth enwik8] [--blocks 4 12]
    python benchmarks/run.py tpu --cases layer --text FOLDER

Prints what the TPU's compiler says of a step of Adam's on a language model:
temporaries and arguments (weights, optimizer and tokens), operations, bytes
accessed, and its estimate of the time, whose limits `hlo.py` names.

`layer` is one LSH layer, forward and backward, the one of `attention`. `depth`
compares numbers of blocks, `dropout` the smaller one with and without dropout;
the others are large models beside the memory of a chip. About a minute a block.
"""

import pathlib
import re
import time
import unittest.mock

import contenders
import half_million
import reporting

CASES = ("layer", "depth", "dropout", "half-million", "million", "enwik8")
KEYS = ("name", "topology")
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
MILLION = {**HALF_MILLION, "max_sequence_length": 2**20}
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
    "cases": (list(CASES), "", ["depth"]),
    "blocks": ([4, 12], "", [1]),
    "length": (16384, "of layer, depth and dropout", 64),
    "topology": ("v5e:1x1", "of layer, depth and dropout"),
    "text": ("", "a folder for the compiled programs"),
}


# === Cases ===


def cases(options):
    """Those asked for; depth and dropout share one."""
    least, layer = min(options.blocks), {"length": options.length}
    found = {
        "layer": [("LSH layer", options.topology, layer)],
        "depth": [small_case(options, n, DROPOUT) for n in options.blocks],
        "dropout": [small_case(options, least, x) for x in (DROPOUT, 0.0)],
        "half-million": [("half a million tokens", "v2:2x2", HALF_MILLION, 8)],
        "million": [("a million tokens", "v5e:1x1", MILLION, 16)],
        "enwik8": [("enwik8, 65,536 tokens", "v5e:1x1", ENWIK8, 16)],
    }
    asked = [each for each in CASES if each in options.cases]
    made = {each[0]: each for kind in asked for each in found[kind]}
    return [case(*each) | {"text": options.text} for each in made.values()]


def small_case(options, blocks, dropout):
    name = f"dropout {dropout}" if dropout else "no dropout"
    sizes = {"num_layers": blocks, "max_sequence_length": options.length}
    model = {**SMALL, **sizes, "dropout": dropout}
    return f"{blocks} blocks, {name}", options.topology, model


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
    if case.get("text"):
        folder = pathlib.Path(case["text"])
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "-", f"{case['name']} {case['topology']}")
        text = tpu_compiler.program_text(compiled)
        (folder / f"{name}.txt").write_text(text or "")
    return {
        **tpu_compiler.describe(compiled, case["topology"]),
        "lowering": lowered - start,
        "compiling": time.perf_counter() - lowered,
    }


def lower(model, batch_size=1):
    """A model's train step, or a layer's two passes, as traced for a TPU.

    There is no TPU here, and so no strategy of one to trace in. To whoever
    asks, in any revision of the package, the strategy that there is passes
    for one.
    """
    import tensorflow as tf
    import tpu_compiler

    if "length" in model:
        step = layer_step(**model)
    else:
        step = train_step(model, batch_size)
    strategy = type(tf.distribute.get_strategy())
    with unittest.mock.patch.object(tf.distribute, "TPUStrategy", strategy):
        return tpu_compiler.lower(*step)


def layer_step(length):
    """Both passes of the layer of `attention`, and the specs of its inputs:
    the tokens and the gradient of the output."""
    import tensorflow as tf

    layer = contenders.make_layer((1, length, contenders.WIDTH))

    def step(x, d_y):
        weights = [variable.value for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, [x, *weights], output_gradients=d_y)

    spec = tf.TensorSpec((1, length, contenders.WIDTH), tf.float32)
    return step, spec, spec


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
        "Gflop": "{Gflop:.1f}",
        "GB accessed": "{GB:.1f}",
        "estimated ms": "{milliseconds:.1f}",
        "rows gathered": "{gathered:,}",
        "lowering, s": "{lowering:.0f}",
        "compiling, s": "{compiling:.0f}",
    }

    def billions(value):
        return None if value is None else value / 1e9

    shown = [
        {**x, "Gflop": billions(x["flops"]), "GB": billions(x["bytes"])}
        for x in records
    ]
    yield "Compiled for a TPU", *reporting.rows(shown, columns)
    small = [
        each
        for each in records
        if "dropout" in each["model"] and each["limit"] is None
    ]
    compared = [
        row
        for topology, members in reporting.titled(small, "{topology}")
        for row in comparisons(topology, members)
    ]
    compared += fits(records)
    if compared:
        yield "Compared", ("what", "value"), compared


def comparisons(topology, records):
    """Ratios of temporaries: of depths, and with and without dropout."""

    def ratio(record, reference):
        name = f"temporaries: {record['name']} / {reference['name']}"
        sizes = record["temporaries"], reference["temporaries"]
        return name, reporting.ratio(*sizes)

    dropped = {
        each["model"]["num_layers"]: each
        for each in records
        if each["model"]["dropout"]
    }
    for record in dropped.values():
        first = dropped[min(dropped)]
        if record is not first:
            yield ratio(record, first)
            grown, weights = (
                record[name] - first[name]
                for name in ("temporaries", "arguments")
            )
            # Arguments are the weights and Adam's two slots of each.
            yield (
                f"temporaries of one more block / its weights, {topology}",
                reporting.ratio(grown, weights / 3),
            )
    for record in records:
        same = dropped.get(record["model"]["num_layers"])
        if same and not record["model"]["dropout"]:
            yield ratio(same, record)


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
