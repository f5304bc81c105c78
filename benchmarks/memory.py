"""Peak memory of steps against depth, rounds, vocabulary and length.

    python benchmarks/run.py memory [--sweep depth rounds] [--length 16384]

A case tells three sizes of its process: its greatest resident size ever; its
resident size just before the first step; and what a step needs: after the
first step freed memory goes back to the system and the peak is reset, and the
peak of two further steps counts, less the size before the first. So the last
leaves out what tracing and compiling take and give back; graph and code stay
in it. Where the system cannot reset a peak, that of all steps stands for it.

Sweeps: `depth`, a train step with and without recomputation; `optimizer`, of
that step only what Keras's Adam does; `rounds`, one LSH layer, forward and
backward; `vocabulary`, the loss and its gradients, whose own size is taken
off; `length`, a train step of few blocks. Depth is also measured by how much
more a step needs at the whole length than at a quarter of it, where all that
does not depend on the length cancels out.
"""

import measuring
import memory_steps
import reporting

MIB = 2**20
# Of a parameter: itself, its gradient and Adam's two slots, in float32.
BYTES_OF_PARAMETER = 4 * 4
# The sweep's step, its axis, and whether XLA compiles unless told.
SWEEPS = {
    "depth": (memory_steps.train_step, "blocks", [0, 1]),
    "optimizer": (memory_steps.optimizer_step, "blocks", [0, 1]),
    "rounds": (memory_steps.layer_step, "rounds", [0, 1]),
    "vocabulary": (memory_steps.loss_step, "vocabulary", [0, 1]),
    "length": (memory_steps.train_step, "length", [0]),
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
DEFAULTS = {"allocators": ["default"]}
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
OPTIONS = {
    "sweep": list(SWEEPS),
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


def work(case):
    step, told = SWEEPS[case["sweep"]][0](case)
    return {**memory_steps.measure(step), **told}


# === Cases ===


def cases(options):
    """All cases of the sweeps asked for."""
    models = {"recompute": [True], "width": [options.width]}
    reversible = {"recompute": map(bool, options.recompute)}
    lengths = options.length // 4, options.length
    found = {
        "depth": {
            **models | reversible,
            "blocks": options.depths,
            "length": lengths,
        },
        "optimizer": {
            **models,
            "blocks": options.depths,
            "length": [options.length],
        },
        "rounds": {"rounds": options.hashes, "length": [options.length]},
        "vocabulary": {
            "vocabulary": options.vocabularies,
            "tokens": [options.tokens],
        },
        "length": {
            **models,
            "blocks": [options.length_blocks],
            "length": options.lengths,
        },
    }
    for sweep in options.sweep:
        flags = SWEEPS[sweep][2] if options.xla is None else options.xla
        xla = [bool(flag) for flag in flags]
        yield from measuring.grid(sweep=[sweep], xla=xla, **found[sweep])


def variant(case):
    """What a case is called beside others of its sweep."""
    name = "XLA" if case["xla"] else "no XLA"
    if case["sweep"] == "depth":
        return f"{'reversible' if case['recompute'] else 'plain'}, {name}"
    return name


# === Tables ===


def series(records, sweep):
    """By variant, the records of a sweep in the order of its axis.

    A depth is measured at two lengths; this is the greater.
    """
    mine = [record for record in records if record["sweep"] == sweep]
    axis = SWEEPS[sweep][1]
    if sweep == "depth":
        longest = max((each["length"] for each in mine), default=0)
        mine = [each for each in mine if each["length"] == longest]
    found = {}
    for record in sorted(mine, key=lambda record: record[axis]):
        found.setdefault(variant(record), []).append(record)
    return found


def growth(record):
    """Peak less the size before the first step, and less what is asked for."""
    return record["peak"] - record["before"] - record.get("less", 0)


def needs(record):
    """What a step needs besides what it is asked for."""
    return record["needs"] - record.get("less", 0)


def tables(records, options):
    """A table for every sweep that ran, and one more for depth."""
    for sweep, (_, axis, _) in SWEEPS.items():
        found = series(records, sweep)
        if not found:
            continue
        rows = [
            row(each, axis, mine[0]) for mine in found.values() for each in mine
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
        first = next(iter(found.values()))[0]
        yield TITLES[sweep].format(**first), header, rows
    yield from block_table(records)


def row(record, axis, first):
    sizes = record["peak"], record["before"], growth(record)
    return (
        variant(record),
        record[axis],
        *(f"{size:.0f}" for size in sizes),
        reporting.ratio(growth(record), growth(first)),
        f"{needs(record):.0f}",
        reporting.ratio(needs(record), needs(first)),
    )


def length_growths(records):
    """By variant, pairs of depth and growth of the need with the length."""
    mine = [record for record in records if record["sweep"] == "depth"]
    least = min((record["length"] for record in mine), default=0)
    quarters = {
        (variant(record), record["blocks"]): record["needs"]
        for record in mine
        if record["length"] == least
    }
    return {
        name: [
            (each["blocks"], each["needs"] - quarters[name, each["blocks"]])
            for each in whole
            if (name, each["blocks"]) in quarters
        ]
        for name, whole in series(records, "depth").items()
    }


def block_table(records):
    """What each added block costs, beside what its parameters take."""
    growths = length_growths(records)
    adam = series(records, "optimizer")
    rows = [
        block_row(name, growths[name], whole, adam.get(name.split(", ")[1], ()))
        for name, whole in series(records, "depth").items()
        if len(growths[name]) > 1
    ]
    if rows:
        header = (
            "model",
            "growth of the need with the length, MiB",
            "of it per added block",
            "whole peak per added block",
            "Adam's alone",
            "need per added block",
            "parameters of a block x 16 bytes",
        )
        yield "From a quarter of the length to the whole", header, rows


def block_row(name, growths, whole, optimizer):
    def per_block(pairs):
        (least, first), (most, last) = pairs[0], pairs[-1]
        return f"{(last - first) / (most - least):.1f}"

    def size_per_block(mine, size):
        return per_block([(each["blocks"], each[size]) for each in mine])

    parameters = whole[-1]["block_parameters"] * BYTES_OF_PARAMETER / MIB
    return (
        name,
        ", ".join(f"{blocks}: {value:.0f}" for blocks, value in growths),
        per_block(growths),
        size_per_block(whole, "peak"),
        size_per_block(optimizer, "peak") if len(optimizer) > 1 else "",
        size_per_block(whole, "needs"),
        f"{parameters:.1f}",
    )


# === Picture ===


def plot(records, options):
    """One panel for each sweep that ran."""
    found = {sweep: curves(records, sweep) for sweep in SWEEPS}
    found = {sweep: lines for sweep, lines in found.items() if lines}
    figure, panels = reporting.make_panels(1, len(found), 4.5)
    for panel, (sweep, lines) in zip(panels[0], found.items(), strict=True):
        what = "growth of the need with the length"
        what = what if sweep == "depth" else "a step needs"
        reporting.draw_lines(
            panel,
            lines,
            xlabel=SWEEPS[sweep][1],
            ylabel=f"{what} (MiB)",
            title=sweep,
        )
        panel.legend(fontsize="small")
    return figure


def curves(records, sweep):
    """By variant, the points of a panel."""
    if sweep == "depth":
        lines = length_growths(records)
        return {name: points for name, points in lines.items() if points}
    axis = SWEEPS[sweep][1]
    return {
        name: [(each[axis], needs(each)) for each in mine]
        for name, mine in series(records, sweep).items()
    }
