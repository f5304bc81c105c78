"""Time and memory of one attention layer, ours beside others.

    python benchmarks/run.py attention [--lengths 1024 4096] [--rounds 2]
    python benchmarks/run.py attention --tokens 131072 --picture tokens.png

With `--tokens` a step has that many tokens at every length, as one long
sequence or many short ones.
"""

import functools

import contenders
import measuring
import reporting
from contenders import CONTENDERS, MODES, OURS

KEYS = ("length", "batch", "mode", "contender")
OPTIONS = {
    "lengths": [1024, 2048, 3072, 4096, 8192, 16384, 32768, 65536, 131072],
    "contenders": list(CONTENDERS),
    "modes": list(MODES),
    "tokens": (int, "tokens of a step, whatever the length"),
    "largest_array": (2.0, "GiB of all scores, or of all rotated vectors"),
    "longest": (32768, "length of contenders that take quadratic time"),
}
QUICK = {"lengths": [128]}
COLUMNS = {
    "s": "{seconds:.4f}",
    "us/token": "{us:.2f}",
    "peak growth, MiB": "{growth:.0f}",
    "first step, s": "{first:.2f}",
}

work = functools.partial(contenders.work, CONTENDERS)


def cases(options):
    """The contenders of a length and mode side by side."""
    if options.tokens and any(options.tokens % n for n in options.lengths):
        raise SystemExit("--tokens: not a multiple of every length")
    axes = {"length": options.lengths, "mode": options.modes}
    for case in contenders.cases(CONTENDERS, options, **axes):
        case["batch"] = (options.tokens or case["length"]) // case["length"]
        why = obstacle(case, options)
        if why is None:
            yield case
        else:
            print(f"{reporting.label(case, KEYS)}: left out, {why}", flush=True)


def obstacle(case, options):
    """Why a contender does not run a case, or None."""
    contender = CONTENDERS[case["contender"]]
    if contender.largest_array:
        gibibytes = contender.largest_array(case) / 2**30
        if gibibytes > options.largest_array:
            return f"its largest array takes {gibibytes:.1f} GiB"
    if contender.quadratic_time and case["length"] > options.longest:
        return f"quadratic time, runs to length {options.longest}"
    return None


def tables(records, options):
    """A table for every mode, allocator and length."""
    places = ("mode", "allocator", "length", "batch", "contender")
    for place, summaries in measuring.nest(records, places).items():
        mode, allocator, length, batch = place
        title = f"{mode}, {length:,} tokens, batch {batch}"
        yield reporting.contender_table(
            f"{title}, {allocator} allocator",
            summaries,
            OURS,
            length * batch,
            COLUMNS,
        )


def plot(records, options):
    """Time and memory against length, a row of panels for every mode."""
    per_token = any(record["batch"] > 1 for record in records)
    tokens = records[0]["length"] * records[0]["batch"]
    scale = 1e6 / tokens if per_token else 1
    time = "us a token" if per_token else "seconds"
    found = measuring.split(records, ("mode", "allocator"))
    figure, panels = reporting.make_panels(len(found), 2)
    for ((mode, allocator), members), row in zip(
        found.items(), panels, strict=True
    ):
        axes = members, ["contender"], "length"
        lines = (
            (row[0], time, reporting.curves(*axes, "seconds", scale)),
            (row[1], "peak growth (MiB)", reporting.curves(*axes, "growth")),
        )
        for panel, ylabel, points in lines:
            reporting.draw_lines(
                panel,
                points,
                reporting.colors(CONTENDERS),
                "x" if per_token else "xy",
                xlabel="length",
                ylabel=ylabel,
                title=f"{mode}, {allocator} allocator",
            )
    panels[0, 0].legend(fontsize="small")
    return figure
