"""Time and memory of one attention layer, ours beside others.

    python benchmarks/attention.py [--lengths 1024 4096] [--rounds 2]
    python benchmarks/attention.py --tokens 131072 --picture tokens.png

Each case runs in a process of its own (see `measuring.py`); a round runs all
contenders in turn, so that a machine's bad minutes hit all alike, and medians
are over the steps of all rounds. With `--tokens` a step has that many tokens
at every length, as one long sequence or many short ones. Saves
`docs/attention.png`.
"""

import argparse
import itertools

import buckets
import contenders
import measuring

LENGTHS = (1024, 2048, 3072, 4096, 8192, 16384, 32768, 65536, 131072)
KEYS = ("mode", "allocator", "length", "contender")


# === Cases ===


def obstacle(case, options):
    """Why a contender does not run a case, or None."""
    contender = contenders.CONTENDERS[case["contender"]]
    if contender.largest_array:
        gibibytes = contender.largest_array(case) / 2**30
        if gibibytes > options.largest_array:
            return f"its largest array takes {gibibytes:.1f} GiB"
    if contender.quadratic_time and case["length"] > options.longest:
        return f"quadratic time, runs to length {options.longest}"
    return None


def cases(options):
    """All cases of a round, the contenders of a length side by side."""
    names = list(
        measuring.installed(
            {
                name: contenders.CONTENDERS[name].packages
                for name in options.contenders
            }
        )
    )
    known = buckets.num_buckets(options.lengths)
    for length in options.lengths:
        shape = {
            "length": length,
            "batch": (options.tokens or length) // length,
            "num_buckets": known[length],
        }
        for mode, allocator, name in itertools.product(
            options.modes, options.allocators, names
        ):
            case = {"contender": name, "mode": mode, "allocator": allocator}
            case.update(shape)
            why = obstacle(case, options)
            if why is None:
                yield case
            else:
                print(f"{title(case)} left out, {why}", flush=True)


def title(case):
    return (
        f"{case['length']:>7} x {case['batch']:<4}{case['mode']:<18}"
        f"{case['allocator']:<10}{case['contender']:<24}"
    )


def work(case):
    """What a worker does: prints its answer."""
    step = contenders.make_step(case)
    measuring.answer(measuring.measure(step, case["repeats"]))


# === Tables and picture ===


def tables(records):
    """A table for every mode, allocator and length."""
    summaries = measuring.group(records, KEYS)
    batches = {record["length"]: record["batch"] for record in records}
    found = {}
    for (*place, name), summary in summaries.items():
        found.setdefault(tuple(place), {})[name] = summary
    header = (
        "contender",
        "s",
        "us/token",
        "peak growth, MiB",
        "first step, s",
        "time / ours",
        "memory / ours",
    )
    for (mode, allocator, length), rows in found.items():
        batch = batches[length]
        yield (
            f"{mode}, {length:,} tokens, batch {batch}, {allocator} allocator",
            header,
            [
                row(name, summary, rows.get(contenders.OURS), length * batch)
                for name, summary in rows.items()
            ],
        )


def row(name, summary, ours, num_tokens):
    """A contender's row, with ratios to ours where ours was measured."""
    ours = ours or {}
    return (
        name,
        f"{summary['seconds']:.4f}",
        f"{summary['seconds'] / num_tokens * 1e6:.2f}",
        f"{summary['growth']:.0f}",
        f"{summary['first']:.2f}",
        measuring.ratio(summary["seconds"], ours.get("seconds")),
        measuring.ratio(summary["growth"], ours.get("growth")),
    )


def plot(records, picture):
    """Time and memory against length, a row of panels for every mode."""
    import matplotlib.pyplot as plt

    per_token = any(record["batch"] > 1 for record in records)
    rows = list(measuring.group(records, ("mode", "allocator")))
    figure, axes = plt.subplots(
        len(rows),
        2,
        figsize=(10, 4 * len(rows)),
        layout="constrained",
        squeeze=False,
    )
    for (mode, allocator), panels in zip(rows, axes, strict=True):
        chosen = [
            record
            for record in records
            if (record["mode"], record["allocator"]) == (mode, allocator)
        ]
        plot_lines(chosen, panels, per_token)
        for panel in panels:
            panel.set_title(f"{mode}, {allocator} allocator", fontsize="medium")
    axes[0, 0].legend(fontsize="small")
    figure.savefig(picture, dpi=120)


def plot_lines(records, panels, per_token):
    """A line for each contender, in the same colour in both panels."""
    time_name = "us a token" if per_token else "seconds"
    names = dict.fromkeys(record["contender"] for record in records)
    for name in names:
        mine = [record for record in records if record["contender"] == name]
        summaries = measuring.group(mine, ("length", "batch"))
        lengths = [length for length, _ in summaries]
        times = [
            summary["seconds"] * (1e6 / (length * batch) if per_token else 1)
            for (length, batch), summary in summaries.items()
        ]
        growths = [summary["growth"] for summary in summaries.values()]
        color = f"C{list(contenders.CONTENDERS).index(name)}"
        for panel, values in zip(panels, (times, growths), strict=True):
            panel.plot(lengths, values, marker="o", label=name, color=color)
    for panel, label in zip(
        panels, (time_name, "peak growth (MiB)"), strict=True
    ):
        panel.set(xlabel="length", ylabel=label)
        panel.set_xscale("log", base=2)
        if per_token:
            measuring.start_at_zero(panel)
        else:
            panel.set_yscale("log")
        panel.grid(alpha=0.3)


# === Command ===


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(contenders.CONTENDERS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--contenders", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=contenders.MODES,
        default=contenders.MODES,
    )
    parser.add_argument(
        "--tokens", type=int, help="tokens of a step, whatever the length"
    )
    parser.add_argument(
        "--largest-array",
        type=float,
        default=2.0,
        metavar="GIB",
        help="of a contender that keeps all scores or all rotated vectors",
    )
    parser.add_argument(
        "--longest",
        type=int,
        default=32768,
        help="length of contenders that take quadratic time",
    )
    measuring.add_options(parser, measuring.DOCS / "attention.png")
    chosen = parser.parse_args()
    if chosen.tokens and any(chosen.tokens % each for each in chosen.lengths):
        parser.error("--tokens: not a multiple of every length")
    return chosen


def main():
    chosen = options()
    if chosen.worker:
        work(chosen.worker)
        return
    print(measuring.describe_machine(), flush=True)
    records = measuring.load_json(chosen.load)
    if not chosen.load:
        records = measuring.measure_all(
            __file__, list(cases(chosen)), chosen, title
        )
    if records:
        measuring.report(list(tables(records)), chosen.markdown)
        plot(records, chosen.picture)
        print(f"picture: {chosen.picture}")


if __name__ == "__main__":
    main()
