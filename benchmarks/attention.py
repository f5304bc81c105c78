"""Time and memory of one attention layer, ours beside others.

    python benchmarks/run.py attention [--lengths 1024 4096] [--rounds 2]
    python benchmarks/run.py attention --tokens 131072 --picture tokens.png

With `--tokens` a step has that many tokens at every length, as one long
sequence or many short ones.
"""

import functools

import contenders
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
        bytes_of_one = contender.largest_array(case["length"])
        gibibytes = case["batch"] * bytes_of_one / 2**30
        if gibibytes > options.largest_array:
            return f"its largest array takes {gibibytes:.1f} GiB"
    if contender.quadratic_time and case["length"] > options.longest:
        return f"quadratic time, runs to length {options.longest}"
    return None


def tables(records, options):
    title = "{mode}, {length:,} tokens, batch {batch}, {allocator} allocator"
    columns = {
        "s": "{seconds:.4f}",
        "us/token": "{us:.2f}",
        "peak growth, MiB": "{growth:.0f}",
        "first step, s": "{first:.2f}",
    }
    return contenders.tables(records, title, OURS, columns)


def plot(records, options):
    """Time and memory against length, a row of panels for every mode."""
    per_token = any(record["batch"] > 1 for record in records)
    tokens = records[0]["length"] * records[0]["batch"]
    time, scale = ("us a token", 1e6 / tokens) if per_token else ("seconds", 1)
    memory = "peak growth (MiB)"
    shared = {
        "styles": reporting.colors(CONTENDERS),
        "logarithmic": "x" if per_token else "xy",
        "xlabel": "length",
    }

    def row(title, members):
        axes = members, "{contender}", "length"
        seconds = reporting.curves(*axes, "seconds", scale)
        growth = reporting.curves(*axes, "growth")
        return [
            {**shared, "title": title, "ylabel": time, "lines": seconds},
            {**shared, "title": title, "ylabel": memory, "lines": growth},
        ]

    modes = reporting.titled(records, "{mode}, {allocator} allocator")
    rows = [row(*mode) for mode in modes]
    rows[0][0]["legend"] = {"fontsize": "small"}
    return reporting.picture(rows)
