"""Peak memory of steps against depth, rounds, vocabulary and length.

    python benchmarks/run.py memory [--sweep depth rounds] [--length 16384]

`depth` is measured at a quarter of the length too: what does not depend on the
length cancels out in the difference. `optimizer` is what Keras's Adam does in
such a step, `rounds` one LSH layer, `vocabulary` the loss and its gradients,
whose own size is taken off, and `length` a train step of few blocks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import contenders
import language_model
import measuring
import reporting
import steps

MIB = 2**20
HASHES = 2  # of the models
HEAD_WIDTH = 512
# Of a parameter: itself, its gradient and Adam's two slots, in float32.
BYTES_OF_PARAMETER = 4 * 4


def work(case):
    """Sizes of this process in MiB, before and during a few steps."""
    step, about = SWEEPS[case["sweep"]].make(case)
    found = measuring.measure(step, case["repeats"], needs=True)
    less = about.pop("less", 0)
    sizes = {name: found[name] - less for name in ("growth", "needs")}
    return {**found, **sizes, **about}


# === Steps, and what else a case tells ===


def train_step(case):
    """A step of Adam's; says how many parameters a block has."""
    import keras

    model = make_model(case)
    model.compile(keras.optimizers.Adam(), jit_compile=case["xla"])
    tokens = language_model.draw_tokens(case["length"])
    weights = model.backbone.sequence.trainable_variables
    parameters = sum(math.prod(weight.shape) for weight in weights)
    about = {"block_parameters": parameters / case["blocks"]}
    return lambda: model.train_on_batch(tokens, tokens), about


def optimizer_step(case):
    """Keras's Adam alone, on the variables of the model of `train_step`."""
    import keras
    import tensorflow as tf

    variables = make_model(case).trainable_variables
    optimizer = keras.optimizers.Adam()
    optimizer.build(variables)

    def update(scale):
        # Cheap to compute.
        gradients = [scale * variable.value for variable in variables]
        optimizer.apply(gradients, variables)
        return variables[0].value

    return steps.compiled(update, [tf.constant(0.1)], case["xla"]), {}


def make_model(case):
    return language_model.ours(
        case["blocks"],
        case["length"],
        hidden_dim=case["width"],
        intermediate_dim=2 * case["width"],
        num_hashes=HASHES,
        dropout=0.1,
        recompute=case["recompute"],
    )


def layer_step(case):
    """Forward and backward of one LSH layer."""
    case = {**case, "batch": 1, "mode": "forward+backward"}
    num_hashes = case["rounds"]
    return contenders.lsh_step(case, case["xla"], num_hashes=num_hashes), {}


def loss_step(case):
    """The chunked cross-entropy of a head and all its gradients.

    No layer or model offers it without the pass before it, so this takes the
    function itself, which has had one place and name.
    """
    import tensorflow as tf

    from keras_reformer.ops.losses import chunked_cross_entropy

    length, vocabulary = case["tokens"], case["vocabulary"]

    def gradients(hidden, kernel, bias, labels):
        with tf.GradientTape() as tape:
            tape.watch((hidden, kernel, bias))
            _, nats, _ = chunked_cross_entropy(
                lambda chunk, weights: chunk @ weights[0] + weights[1],
                hidden,
                [kernel, bias],
                labels,
                vocabulary,
            )
            loss = tf.reduce_mean(nats)
        return loss, tape.gradient(loss, (hidden, kernel, bias))

    normal, uniform = tf.random.stateless_normal, tf.random.stateless_uniform
    inputs = (
        normal((1, length, HEAD_WIDTH), (1, 2)),
        normal((HEAD_WIDTH, vocabulary), (3, 4)) * 0.02,
        tf.zeros(vocabulary),
        uniform((1, length), (5, 6), 0, vocabulary, tf.int32),
    )
    less = sum(4 * math.prod(x.shape) for x in inputs[:3]) / MIB
    return steps.compiled(gradients, inputs, case["xla"]), {"less": less}


# === Cases ===


class Sweep(NamedTuple):
    """What is measured along an axis, and the title of its table."""

    make: Callable
    axis: str
    title: str = ""


SWEEPS = {
    "depth": Sweep(
        train_step, "blocks", "Train step against depth, {length:,} tokens"
    ),
    # Depth at a quarter of the length.
    "quarter": Sweep(train_step, "blocks"),
    "optimizer": Sweep(
        optimizer_step,
        "blocks",
        "Keras's Adam alone, on the variables of the same model",
    ),
    "rounds": Sweep(
        layer_step, "rounds", "One LSH layer against rounds, {length:,} tokens"
    ),
    "vocabulary": Sweep(
        loss_step,
        "vocabulary",
        "Loss against vocabulary, {tokens:,} tokens; growth and need "
        "less the gradients' own size",
    ),
    "length": Sweep(
        train_step, "length", "Train step of {blocks} blocks against length"
    ),
}
SHOWN = [name for name, sweep in SWEEPS.items() if sweep.title]
KEYS = ("sweep", "recompute", "xla", "blocks", "rounds", "vocabulary", "length")
DEFAULTS = {"allocators": ["default"], "repeats": 2}
OPTIONS = {
    "sweep": SHOWN,
    "length": (16384, "of depth, optimizer and rounds", 256),
    "depths": ([4, 12], "", [1, 2]),
    "recompute": ([1, 0], "of depth: reversible, plain or both", [1]),
    "hashes": ([2, 8], "of rounds", [1]),
    "vocabularies": ([320, 32000], "", [30]),
    "tokens": (65536, "of vocabulary", 64),
    "lengths": ([4096, 16384, 65536], "", [64]),
    "length_blocks": (2, "blocks of length", 1),
    "width": (256, "of the models", 16),
    "xla": ([int], "0, 1 or both; default both, and without for length", [0]),
}


def cases(options):
    """All cases of the sweeps asked for, depth at a quarter of the length."""
    model = {"recompute": [True], "width": [options.width]}
    depth = {**model, "blocks": options.depths, "length": [options.length]}
    both = depth | {"recompute": list(map(bool, options.recompute))}
    vocabulary = {"vocabulary": options.vocabularies}
    few = {"blocks": [options.length_blocks], "length": options.lengths}
    axes = {
        "depth": both,
        "quarter": both | {"length": [options.length // 4]},
        "optimizer": depth,
        "rounds": {"rounds": options.hashes, "length": [options.length]},
        "vocabulary": vocabulary | {"tokens": [options.tokens]},
        "length": model | few,
    }
    for sweep in options.sweep:
        flags = options.xla or ([0] if sweep == "length" else [0, 1])
        xla = list(map(bool, flags))
        for name in ["depth", "quarter"] if sweep == "depth" else [sweep]:
            yield from measuring.grid(sweep=[name], xla=xla, **axes[name])


# === Tables and picture ===


def series(records, sweep):
    """By variant, the medians of a sweep by the values of its axis."""
    axis = SWEEPS[sweep].axis
    mine = [record for record in records if record["sweep"] == sweep]
    mine.sort(key=lambda record: record[axis])
    found = {}
    for each in measuring.medians(mine, ("recompute", "xla", axis)):
        name = "XLA" if each["xla"] else "no XLA"
        if sweep in ("depth", "quarter"):
            name = f"{'reversible' if each['recompute'] else 'plain'}, {name}"
        found.setdefault(name, {})[each[axis]] = {**each, "name": name}
    return found


def growths(records):
    """Medians of depth, with how the need `grew` from a quarter's."""
    whole, quarter = series(records, "depth"), series(records, "quarter")
    return {
        name: {
            n: {**line[n], "grew": line[n]["needs"] - quarter[name][n]["needs"]}
            for n in line
            if n in quarter.get(name, {})
        }
        for name, line in whole.items()
    }


def tables(records, options):
    """A table for every sweep that ran, and one more for depth."""
    for sweep in SHOWN:
        axis = SWEEPS[sweep].axis
        model = "model" if sweep in ("depth", "length") else "compiled with"
        columns = [
            (model, "{name}"),
            (axis, f"{{{axis}}}"),
            ("peak, MiB", "{peak:.0f}"),
            ("before first step", "{before:.0f}"),
            ("peak growth", "{growth:.0f}"),
            ("to the first", "{growth/}"),
            ("a step needs", "{needs:.0f}"),
            ("to the first", "{needs/}"),
        ]
        rows = []
        for line in series(records, sweep).values():
            medians = list(line.values())
            header, cells = reporting.rows(medians, columns, medians[0])
            rows += cells
        if rows:
            first = next(each for each in records if each["sweep"] == sweep)
            yield SWEEPS[sweep].title.format(**first), header, rows
    yield from block_table(records)


def block_table(records):
    """What each added block costs, beside what its parameters take."""
    adam, rows = series(records, "optimizer"), []
    for name, line in growths(records).items():
        if len(line) > 1:
            grew = [f"{n}: {each['grew']:.0f}" for n, each in line.items()]
            parameters = line[max(line)]["block_parameters"]
            row = (
                *(name, ", ".join(grew), per_block(line, "grew")),
                per_block(line, "peak"),
                per_block(adam.get(name.split(", ")[1], {}), "peak"),
                per_block(line, "needs"),
                f"{parameters * BYTES_OF_PARAMETER / MIB:.1f}",
            )
            rows.append(row)
    header = (
        "model",
        "growth of the need with the length, MiB",
        "of it per added block",
        "whole peak per added block",
        "Adam's alone",
        "need per added block",
        "parameters of a block x 16 bytes",
    )
    if rows:
        yield "From a quarter of the length to the whole", header, rows


def per_block(line, size):
    """Growth from the least to the largest depth; empty without two."""
    if len(line) < 2:
        return ""
    least, most = min(line), max(line)
    return f"{(line[most][size] - line[least][size]) / (most - least):.1f}"


def plot(records, options):
    """One panel for each sweep that ran."""
    row = []
    for sweep in SHOWN:
        lines, value, what = series(records, sweep), "needs", "a step needs"
        if sweep == "depth":
            lines, value = growths(records), "grew"
            what = "growth of the need with the length"
        points = {
            name: [(x, each[value]) for x, each in line.items()]
            for name, line in lines.items()
            if line
        }
        labels = {"xlabel": SWEEPS[sweep].axis, "ylabel": f"{what} (MiB)"}
        panel = {"lines": points, "title": sweep, **labels}
        if points:
            row.append(panel | {"legend": {"fontsize": "small"}})
    return reporting.picture([row], width=4.5)
