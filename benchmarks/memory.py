"""Peak memory of steps against depth, rounds, vocabulary and length.

    python benchmarks/run.py memory [--sweep depth rounds] [--length 16384]

A case tells its process's greatest resident size ever, the size just before
the first step, and what a step needs: after the first, freed memory goes back
to the system and the peak is reset, and the peak of further steps counts, less
the size before the first. Where the system cannot reset a peak, that of all
steps stands for it.

`depth` is measured at a quarter of the length too: what does not depend on the
length cancels out in the difference. `optimizer` is what Keras's Adam does in
such a step, `rounds` one LSH layer, `vocabulary` the loss and its gradients,
whose own size is taken off, and `length` a train step of few blocks.
"""

import math

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
    step, about = STEPS[case["sweep"]](case)
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

STEPS = {
    "depth": train_step,
    "quarter": train_step,
    "optimizer": optimizer_step,
    "rounds": layer_step,
    "vocabulary": loss_step,
    "length": train_step,
}
AXES = {
    "depth": "blocks",
    "optimizer": "blocks",
    "rounds": "rounds",
    "vocabulary": "vocabulary",
    "length": "length",
}
TITLES = {
    "depth": "Train step against depth, {length:,} tokens",
    "optimizer": "Keras's Adam alone, on the variables of the same model",
    "rounds": "One LSH layer against rounds, {length:,} tokens",
    "vocabulary": (
        "Loss against vocabulary, {tokens:,} tokens; growth and need "
        "less the gradients' own size"
    ),
    "length": "Train step of {blocks} blocks against length",
}
KEYS = ("sweep", "recompute", "xla", "blocks", "rounds", "vocabulary", "length")
DEFAULTS = {"allocators": ["default"], "repeats": 2}
OPTIONS = {
    "sweep": list(AXES),
    "length": (16384, "of depth, optimizer and rounds"),
    "depths": [4, 12],
    "recompute": ([1, 0], "of depth: reversible, plain or both"),
    "hashes": ([2, 8], "of rounds"),
    "vocabularies": [320, 32000],
    "tokens": (65536, "of vocabulary"),
    "lengths": [4096, 16384, 65536],
    "length_blocks": (2, "blocks of length"),
    "width": (256, "of the models"),
    "xla": ([int], "0, 1 or both; default both, and without for length"),
}
QUICK = {
    "length": 256,
    "depths": [1, 2],
    "recompute": [1],
    "hashes": [1],
    "vocabularies": [30],
    "tokens": 64,
    "lengths": [64],
    "length_blocks": 1,
    "width": 16,
    "xla": [0],
}


def cases(options):
    """All cases of the sweeps asked for, depth at a quarter of the length."""
    model = {"recompute": [True], "width": [options.width]}
    at_length = {"length": [options.length]}
    depth = {**model, "blocks": options.depths, **at_length}
    reversible = {"recompute": list(map(bool, options.recompute))}
    axes = {
        "depth": depth | reversible,
        "quarter": depth | reversible | {"length": [options.length // 4]},
        "optimizer": depth,
        "rounds": {"rounds": options.hashes, **at_length},
        "vocabulary": {
            "vocabulary": options.vocabularies,
            "tokens": [options.tokens],
        },
        "length": {
            **model,
            "blocks": [options.length_blocks],
            "length": options.lengths,
        },
    }
    for sweep in options.sweep:
        flags = options.xla or ([0] if sweep == "length" else [0, 1])
        xla = list(map(bool, flags))
        names = ["depth", "quarter"] if sweep == "depth" else [sweep]
        for name in names:
            yield from measuring.grid(sweep=[name], xla=xla, **axes[name])


# === Tables and picture ===


def series(records, sweep):
    """By variant, the medians of a sweep by the values of its axis."""
    mine = [record for record in records if record["sweep"] == sweep]
    axis = AXES.get(sweep, "blocks")
    found = {}
    places = measuring.group(mine, ("recompute", "xla", axis))
    for (recompute, xla, x), medians in places.items():
        name = "XLA" if xla else "no XLA"
        if sweep in ("depth", "quarter"):
            name = f"{'reversible' if recompute else 'plain'}, {name}"
        found.setdefault(name, {})[x] = medians
    return {name: dict(sorted(line.items())) for name, line in found.items()}


def tables(records, options):
    """A table for every sweep that ran, and one more for depth."""
    for sweep, axis in AXES.items():
        rows = [
            row(name, x, medians, next(iter(line.values())))
            for name, line in series(records, sweep).items()
            for x, medians in line.items()
        ]
        header = (
            "model" if sweep in ("depth", "length") else "compiled with",
            axis,
            "peak, MiB",
            "before first step",
            "peak growth",
            "to the first",
            "a step needs",
            "to the first",
        )
        if rows:
            first = next(each for each in records if each["sweep"] == sweep)
            yield TITLES[sweep].format(**first), header, rows
    yield from block_table(records)


def row(name, x, medians, first):
    cells = [name, x]
    for size in ("peak", "before", "growth", "needs"):
        cells.append(f"{medians[size]:.0f}")
        if size in ("growth", "needs"):
            cells.append(reporting.ratio(medians[size], first[size]))
    return cells


def length_growths(records):
    """By variant and depth, how a step's need grows with the length."""
    quarter = series(records, "quarter")
    return {
        name: {
            blocks: medians["needs"] - quarter[name][blocks]["needs"]
            for blocks, medians in line.items()
            if blocks in quarter.get(name, {})
        }
        for name, line in series(records, "depth").items()
    }


def block_table(records):
    """What each added block costs, beside what its parameters take."""
    columns = {
        "model": "{name}",
        "growth of the need with the length, MiB": "{growths}",
        "of it per added block": "{growth}",
        "whole peak per added block": "{peak}",
        "Adam's alone": "{adam}",
        "need per added block": "{needs}",
        "parameters of a block x 16 bytes": "{parameters:.1f}",
    }
    whole, adam = series(records, "depth"), series(records, "optimizer")
    rows = [
        {
            "name": name,
            "growths": ", ".join(f"{n}: {x:.0f}" for n, x in found.items()),
            "growth": per_block(found),
            "peak": size_per_block(whole[name], "peak"),
            "adam": size_per_block(adam.get(name.split(", ")[1], {}), "peak"),
            "needs": size_per_block(whole[name], "needs"),
            "parameters": whole[name][max(found)]["block_parameters"]
            * BYTES_OF_PARAMETER
            / MIB,
        }
        for name, found in length_growths(records).items()
        if len(found) > 1
    ]
    if rows:
        title = "From a quarter of the length to the whole"
        yield title, *reporting.rows(rows, columns)


def size_per_block(line, size):
    return per_block({blocks: each[size] for blocks, each in line.items()})


def per_block(sizes):
    """Growth from the least to the largest depth; empty without two."""
    if len(sizes) < 2:
        return ""
    least, most = min(sizes), max(sizes)
    return f"{(sizes[most] - sizes[least]) / (most - least):.1f}"


def plot(records, options):
    """One panel for each sweep that ran."""
    found = {sweep: curves(records, sweep) for sweep in AXES}
    found = {sweep: lines for sweep, lines in found.items() if lines}
    figure, panels = reporting.make_panels(1, len(found), 4.5)
    for panel, (sweep, lines) in zip(panels[0], found.items(), strict=True):
        what = "growth of the need with the length"
        what = what if sweep == "depth" else "a step needs"
        labels = {"xlabel": AXES[sweep], "ylabel": f"{what} (MiB)"}
        points = {name: list(line.items()) for name, line in lines.items()}
        reporting.draw_lines(panel, points, title=sweep, **labels)
        panel.legend(fontsize="small")
    return figure


def curves(records, sweep):
    """By variant, what a panel shows by the values of its axis."""
    if sweep == "depth":
        return {k: line for k, line in length_growths(records).items() if line}
    return {
        name: {x: medians["needs"] for x, medians in line.items()}
        for name, line in series(records, sweep).items()
    }
