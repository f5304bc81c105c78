"""Time and memory of one attention layer, ours beside others.

    python benchmarks/run.py attention [--lengths 1024 4096] [--rounds 2]
    python benchmarks/run.py attention --tokens 131072 --picture tokens.png

With `--tokens` a step has that many tokens at every length, as one long
sequence or many short ones.
"""

import itertools

import contenders
import measuring
import reporting
from contenders import CONTENDERS, MODES, OURS

LENGTHS = (1024, 2048, 3072, 4096, 8192, 16384, 32768, 65536, 131072)
KEYS = ("length", "batch", "mode", "contender")
QUICK = {"lengths": [128]}


def add_options(add):
    contenders.add_option(add, CONTENDERS)
    add("--lengths", type=int, nargs="+", default=LENGTHS)
    add("--modes", nargs="+", choices=MODES, default=MODES)
    add("--tokens", type=int, help="tokens of a step, whatever the length")
    add(
        "--largest-array",
        type=float,
        default=2.0,
        metavar="GIB",
        help="of a contender that keeps all scores or all rotated vectors",
    )
    add(
        "--longest",
        type=int,
        default=32768,
        help="length of contenders that take quadratic time",
    )


# === Cases ===


def cases(options):
    """The contenders of a length and mode side by side."""
    if options.tokens and any(options.tokens % n for n in options.lengths):
        raise SystemExit("--tokens: not a multiple of every length")
    names = contenders.chosen(CONTENDERS, options)
    for length, mode, name in itertools.product(
        options.lengths, options.modes, names
    ):
        case = {
            "length": length,
            "batch": (options.tokens or length) // length,
            "mode": mode,
            "contender": name,
        }
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


def work(case):
    step = CONTENDERS[case["contender"]].make(case)
    return measuring.measure(step, case["repeats"])


# === Tables and picture ===


def tables(records, options):
    """A table for every mode, allocator and length."""
    places = ("mode", "allocator", "length", "batch", "contender")
    for place, summaries in measuring.nest(records, places).items():
        mode, allocator, length, batch = place
        tokens = length * batch
        yield reporting.contender_table(
            f"{mode}, {length:,} tokens, batch {batch}, {allocator} allocator",
            summaries,
            OURS,
            {
                "s": lambda each: f"{each['seconds']:.4f}",
                "us/token": lambda each, tokens=tokens: (
                    f"{each['seconds'] / tokens * 1e6:.2f}"
                ),
                "peak growth, MiB": lambda each: f"{each['growth']:.0f}",
                "first step, s": lambda each: f"{each['first']:.2f}",
            },
        )


def plot(records, options):
    """Time and memory against length, a row of panels for every mode."""
    per_token = any(record["batch"] > 1 for record in records)
    places = measuring.nest(
        records, ("mode", "allocator", "contender", "length", "batch")
    )
    scales = "x" if per_token else "xy"
    time = "us a token" if per_token else "seconds"
    rows = list(measuring.group(records, ("mode", "allocator")))
    figure, panels = reporting.make_panels(len(rows), 2)
    for place, (left, right) in zip(rows, panels, strict=True):
        times, growths = {}, {}
        for (*where, name, length), batches in places.items():
            if tuple(where) != place:
                continue
            for batch, each in batches.items():
                scale = 1e6 / (length * batch) if per_token else 1
                point = length, each["seconds"] * scale
                times.setdefault(name, []).append(point)
                growths.setdefault(name, []).append((length, each["growth"]))
        draw_panel(left, times, place, scales, time)
        draw_panel(right, growths, place, scales, "peak growth (MiB)")
    panels[0, 0].legend(fontsize="small")
    return figure


def draw_panel(panel, lines, place, scales, ylabel):
    colors = {name: {"color": f"C{i}"} for i, name in enumerate(CONTENDERS)}
    title = f"{place[0]}, {place[1]} allocator"
    reporting.draw_lines(
        panel,
        lines,
        colors,
        scales,
        xlabel="length",
        ylabel=ylabel,
        title=title,
    )
