"""Peak memory of steps against depth, rounds, vocabulary and length.

    python benchmarks/memory.py [--sweep depth rounds] [--length 16384]

Every case runs in a process of its own (see `measuring.py`), which tells
three sizes: its greatest resident size ever; its resident size just before
the first step; and what a step needs: after the first step freed memory goes
back to the system and the peak is reset, and the peak of two further steps
counts, less the size before the first. So the last leaves out what tracing
and compiling take and give back; graph and code stay in it. Where the
system cannot reset a peak, that of all steps stands for it.

Sweeps: `depth`, a train step with and without recomputation; `optimizer`, of
that step only what Keras's Adam does; `rounds`, one LSH layer, forward and
backward; `vocabulary`, the loss and its gradients, whose own size is taken
off; `length`, a train step of few blocks. Depth is also measured by how much
more a step needs at the whole length than at a quarter of it, where all that
does not depend on the length cancels out.

Saves `docs/memory.png`.
"""

import argparse
import itertools
import json
import pathlib

import measuring
import memory_steps

MIB = 2**20
# Of a parameter: itself, its gradient and Adam's two slots, in float32.
BYTES_OF_PARAMETER = 4 * 4
SAID = {
    "blocks": "blocks",
    "rounds": "rounds",
    "vocabulary": "words",
    "tokens": "tokens",
    "length": "tokens",
}
# The sweep's step, its axis, and whether XLA compiles unless told.
SWEEPS = {
    "depth": (memory_steps.train_step, "blocks", [0, 1]),
    "optimizer": (memory_steps.optimizer_step, "blocks", [0, 1]),
    "rounds": (memory_steps.layer_step, "rounds", [0, 1]),
    "vocabulary": (memory_steps.loss_step, "vocabulary", [0, 1]),
    "length": (memory_steps.train_step, "length", [0]),
}


def work(case):
    """What a worker does: prints its answer."""
    step, told = SWEEPS[case["sweep"]][0](case)
    measuring.answer({**memory_steps.measure(step), **told})


# === Cases ===


def cases(options):
    """All cases of the sweeps asked for."""
    makers = {
        "depth": depth_cases,
        "optimizer": lambda options: (
            model_case(options, blocks, options.length)
            for blocks in options.depths
        ),
        "rounds": lambda options: (
            {"rounds": rounds, "length": options.length}
            for rounds in options.rounds
        ),
        "vocabulary": lambda options: (
            {"vocabulary": size, "tokens": options.tokens}
            for size in options.vocabularies
        ),
        "length": lambda options: (
            model_case(options, options.length_blocks, length)
            for length in options.lengths
        ),
    }
    for sweep in options.sweep:
        xla = SWEEPS[sweep][2] if options.xla is None else options.xla
        for flag, case in itertools.product(xla, makers[sweep](options)):
            yield {"sweep": sweep, "xla": bool(flag), **case}


def depth_cases(options):
    for recompute, blocks, length in itertools.product(
        options.recompute, options.depths, (options.length // 4, options.length)
    ):
        yield model_case(options, blocks, length, bool(recompute))


def model_case(options, blocks, length, recompute=True):
    return {
        "blocks": blocks,
        "length": length,
        "width": options.width,
        "recompute": recompute,
    }


def variant(case):
    """What a case is called beside others of its sweep."""
    name = "XLA" if case["xla"] else "no XLA"
    if case["sweep"] == "depth":
        return f"{'reversible' if case['recompute'] else 'plain'}, {name}"
    return name


def measure_all(options):
    """Records of all cases; one that fails prints why."""
    records = []
    for case in cases(options):
        place = ", ".join(
            f"{case[key]:,} {said}" for key, said in SAID.items() if key in case
        )
        name = f"{case['sweep']:<11}{variant(case):<20}{place}:"
        try:
            found = measuring.run_worker(
                __file__, case, "default", timeout=options.timeout
            )
        except measuring.WorkerError as error:
            print(f"{name} failed, {error}", flush=True)
            continue
        print(
            f"{name} peak {found['peak']:.0f} MiB, before the first step "
            f"{found['before']:.0f}, a step needs {found['needs']:.0f}"
            + ("" if found["reset"] else " (peak not reset)"),
            flush=True,
        )
        records.append({**case, **found})
        measuring.save_json(options.json, records)
    return records


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


def tables(records):
    """A table for every sweep that ran, and one more for depth."""
    for sweep in SWEEPS:
        found = series(records, sweep)
        if not found:
            continue
        header = (
            "model" if sweep in ("depth", "length") else "compiled with",
            SWEEPS[sweep][1],
            "peak, MiB",
            "before first step",
            "peak growth",
            "to the first",
            "a step needs",
            "to the first",
        )
        rows = [
            row(each, sweep, mine) for mine in found.values() for each in mine
        ]
        yield title(sweep, found), header, rows
    yield from block_table(records)


def title(sweep, found):
    first = next(iter(found.values()))[0]
    return {
        "depth": "Train step against depth, {length:,} tokens",
        "optimizer": "Keras's Adam alone, on the variables of the same model",
        "rounds": "One LSH layer against rounds, {length:,} tokens",
        "vocabulary": (
            "Loss against vocabulary, {tokens:,} tokens; growth and need "
            "less the gradients' own size"
        ),
        "length": "Train step of {blocks} blocks against length",
    }[sweep].format(**first)


def row(record, sweep, mine):
    return (
        variant(record),
        record[SWEEPS[sweep][1]],
        f"{record['peak']:.0f}",
        f"{record['before']:.0f}",
        f"{growth(record):.0f}",
        measuring.ratio(growth(record), growth(mine[0])),
        f"{needs(record):.0f}",
        measuring.ratio(needs(record), needs(mine[0])),
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
    optimizer = series(records, "optimizer")
    rows = [
        block_row(
            name,
            growths[name],
            whole,
            optimizer.get(name.rpartition(", ")[2], ()),
        )
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

    def peak_per_block(mine):
        return per_block([(each["blocks"], each["peak"]) for each in mine])

    parameters = whole[-1]["block_parameters"] * BYTES_OF_PARAMETER / MIB
    return (
        name,
        ", ".join(f"{blocks}: {value:.0f}" for blocks, value in growths),
        per_block(growths),
        peak_per_block(whole),
        peak_per_block(optimizer) if len(optimizer) > 1 else "",
        per_block([(each["blocks"], each["needs"]) for each in whole]),
        f"{parameters:.1f}",
    )


# === Picture ===


def plot(records, picture):
    """One panel for each sweep that ran."""
    import matplotlib.pyplot as plt

    found = {sweep: curves(records, sweep) for sweep in SWEEPS}
    found = {sweep: lines for sweep, lines in found.items() if lines}
    figure, panels = plt.subplots(
        1,
        len(found),
        figsize=(4.5 * len(found), 4),
        layout="constrained",
        squeeze=False,
    )
    for panel, (sweep, lines) in zip(panels[0], found.items(), strict=True):
        for name, points in lines.items():
            panel.plot(*zip(*points, strict=True), marker="o", label=name)
        label = (
            "growth of the need with the length"
            if sweep == "depth"
            else ("a step needs")
        )
        panel.set(xlabel=SWEEPS[sweep][1], ylabel=f"{label} (MiB)", title=sweep)
        measuring.start_at_zero(panel)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    figure.savefig(picture, dpi=120)


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


# === Command ===


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    names = list(SWEEPS)
    add("--sweep", nargs="+", choices=names, default=names)
    add(
        "--length",
        type=int,
        default=16384,
        help="of depth, optimizer and rounds",
    )
    add("--depths", type=int, nargs="+", default=[4, 12])
    add(
        "--recompute",
        type=int,
        nargs="+",
        choices=[0, 1],
        default=[1, 0],
        help="of depth: reversible, plain or both; default both",
    )
    add("--rounds", type=int, nargs="+", default=[2, 8])
    add("--vocabularies", type=int, nargs="+", default=[320, 32000])
    add("--tokens", type=int, default=65536, help="of vocabulary")
    add("--lengths", type=int, nargs="+", default=[4096, 16384, 65536])
    add("--length-blocks", type=int, default=2, help="blocks of length")
    add("--width", type=int, default=256, help="of the models")
    add(
        "--xla",
        type=int,
        nargs="+",
        choices=[0, 1],
        help="without, with or both; default both, and without for length",
    )
    add("--timeout", type=float, help="seconds that a process may take")
    add("--json", type=pathlib.Path, help="where to store raw results")
    add("--markdown", type=pathlib.Path, help="where to store the tables")
    add("--picture", type=pathlib.Path, default=measuring.DOCS / "memory.png")
    add("--load", type=pathlib.Path, nargs="+", help="print stored results")
    add("--worker", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    chosen = options()
    if chosen.worker:
        work(chosen.worker)
        return
    print(measuring.describe_machine(), flush=True)
    records = measuring.load_json(chosen.load)
    if not chosen.load:
        records = measure_all(chosen)
    if records:
        measuring.report(list(tables(records)), chosen.markdown)
        plot(records, chosen.picture)
        print(f"picture: {chosen.picture}")


if __name__ == "__main__":
    main()
