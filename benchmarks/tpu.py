"""Training steps, compiled for a TPU without having one.

    pip install -e ".[cpu,dev,tpu-compile]"
    python benchmarks/run.py tpu [--cases depth enwik8] [--blocks 4 12]
    python benchmarks/run.py tpu --cases layer --text FOLDER

Prints what the TPU's compiler says of a step of Adam's on a language model:
temporaries and arguments (weights, optimizer and tokens) in MiB, operations,
bytes accessed, and its estimate of the time, whose limits `hlo.py` names.
Weights and optimizer are updated in place, so a step needs temporaries and
arguments.

`layer` is one LSH layer, forward and backward, the one of `attention`. `depth`
compares numbers of blocks, `dropout` the smaller one with and without dropout;
`half-million`, `million` and `enwik8` are large models beside the memory of a
chip. About a minute a block. `--text` stores the compiled programs.
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
    "cases": list(CASES),
    "blocks": [4, 12],
    "length": (16384, "of layer, depth and dropout"),
    "topology": ("v5e:1x1", "of layer, depth and dropout"),
    "text": ("", "a folder for the compiled programs"),
}


# === Cases ===


def cases(options):
    """Those asked for; depth and dropout share one."""
    found = []
    if "layer" in options.cases:
        layer = {"length": options.length}
        found.append(case("LSH layer", options.topology, layer))
    if "depth" in options.cases:
        found += [small_case(options, n, DROPOUT) for n in options.blocks]
    if "dropout" in options.cases:
        least = min(options.blocks)
        found += [small_case(options, least, rate) for rate in (DROPOUT, 0.0)]
    if "half-million" in options.cases:
        found.append(case("half a million tokens", "v2:2x2", HALF_MILLION, 8))
    if "million" in options.cases:
        found.append(case("a million tokens", "v5e:1x1", MILLION, 16))
    if "enwik8" in options.cases:
        found.append(case("enwik8, 65,536 tokens", "v5e:1x1", ENWIK8, 16))
    for each in found:
        each["text"] = options.text
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
        "Gflop": "{Gflop}",
        "GB accessed": "{GB}",
        "estimated ms": "{ms}",
        "rows gathered": "{rows}",
        "lowering, s": "{lowering:.0f}",
        "compiling, s": "{compiling:.0f}",
    }
    shown = [
        {
            **each,
            "Gflop": billions(each["flops"]),
            "GB": billions(each["bytes"]),
            "ms": formatted("{:.1f}", each["milliseconds"]),
            "rows": formatted("{:,}", each["gathered"]),
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


def formatted(form, value):
    """For a table; empty where the compiler said nothing."""
    return "" if value is None else form.format(value)


def comparisons(records):
    """Ratios of temporaries: of depths, and with and without dropout."""
    small = [
        each
        for each in records
        if "dropout" in each["model"] and each["limit"] is None
    ]
    for topology in dict.fromkeys(each["topology"] for each in small):
        yield from comparisons_on(
            [each for each in small if each["topology"] == topology]
        )


def comparisons_on(small):
    """Those of one topology."""
    dropped = [each for each in small if each["model"]["dropout"]]
    by_blocks = {each["model"]["num_layers"]: each for each in dropped}
    if not by_blocks:
        return
    least = min(by_blocks)
    for blocks, record in by_blocks.items():
        if blocks != least:
            yield ratio_row(record, by_blocks[least])
            yield growth_row(record, by_blocks[least])
    for record in small:
        same = by_blocks.get(record["model"]["num_layers"])
        if same and not record["model"]["dropout"]:
            yield ratio_row(same, record)


def ratio_row(record, reference):
    ratio = reporting.ratio(record["temporaries"], reference["temporaries"])
    return f"temporaries: {record['name']} / {reference['name']}", ratio


def growth_row(record, reference):
    """What a block more takes, beside its weights: Adam's two slots and these
    are arguments."""
    grown, weights = (
        record[name] - reference[name] for name in ("temporaries", "arguments")
    )
    return (
        f"temporaries of one more block / its weights, {record['topology']}",
        reporting.ratio(grown, weights / 3),
    )


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
