"""Time and memory of a train step of a whole model, ours beside transformers.

    python benchmarks/run.py model [--lengths 4096 16384] [--rounds 2]
    python benchmarks/run.py model --lengths 4096 --depths 3 6 12

A step is Adam's on the next-token loss of a language model: local and LSH
attention in turn, chunks of 64, 4 rounds, axial positions, no dropout, one
sequence. "plain" is ours without recomputation; `transformers` runs eagerly
with torch's Adam. The first step holds tracing and compiling; with several
depths a table says how it grows.
"""

import functools
import itertools

import contenders
import language_model
import measuring
import reporting
from contenders import Contender

OURS, PLAIN = "ours, XLA", "plain, XLA"
KEYS = ("length", "depth", "contender")
QUICK = {"lengths": [128], "depths": [2]}


def add_options(add):
    contenders.add_option(add, CONTENDERS)
    lengths = [4096, 16384, 65536]
    add("--lengths", type=int, nargs="+", default=lengths)
    add("--depths", type=int, nargs="+", default=[6])


# === Steps ===


def keras_step(case, recompute=True, jit_compile=True):
    """A step of `ReformerCausalLM`."""
    import keras

    model = language_model.ours(
        case["depth"], case["length"], recompute=recompute
    )
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=jit_compile)
    tokens = language_model.draw_tokens(case["length"])
    return lambda: model.train_on_batch(tokens)


def torch_step(case):
    """A step of `ReformerModelWithLMHead` of the same shape."""
    import torch

    model = language_model.published(
        case["depth"], case["length"], case["threads"]
    ).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    tokens = torch.tensor(language_model.draw_tokens(case["length"]))

    def step():
        optimizer.zero_grad()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


CONTENDERS = {
    OURS: Contender(keras_step),
    "ours, no XLA": Contender(functools.partial(keras_step, jit_compile=False)),
    PLAIN: Contender(functools.partial(keras_step, recompute=False)),
    "transformers Reformer": Contender(
        torch_step, ("torch", "transformers"), ours=False
    ),
}


# === Cases ===


def cases(options):
    """The contenders of a shape side by side."""
    names = contenders.chosen(CONTENDERS, options)
    for length, depth, name in itertools.product(
        options.lengths, options.depths, names
    ):
        yield {"length": length, "depth": depth, "contender": name}


def work(case):
    step = CONTENDERS[case["contender"]].make(case)
    return measuring.measure(step, case["repeats"])


# === Tables and picture ===


def tables(records, options):
    """A table for every shape, then first steps against depth."""
    places = ("allocator", "depth", "length", "contender")
    found = measuring.nest(records, places)
    for (allocator, depth, length), summaries in found.items():
        yield reporting.contender_table(
            f"{length:,} tokens, {depth} blocks, {allocator} allocator"
            + reversible_to_plain(summaries),
            summaries,
            OURS,
            {
                "s/step": lambda each: f"{each['seconds']:.3f}",
                "tokens/s": lambda each, length=length: (
                    f"{length / each['seconds']:.0f}"
                ),
                "peak growth, MiB": lambda each: f"{each['growth']:.0f}",
                "first step, s": lambda each: f"{each['first']:.1f}",
            },
        )
    if len({depth for _, depth, _ in found}) > 1:
        yield from depth_tables(records)


def reversible_to_plain(summaries):
    """What recomputation costs in time and saves in memory, for a title."""
    if not {OURS, PLAIN} <= set(summaries):
        return ""
    time, memory = (
        reporting.ratio(summaries[OURS][name], summaries[PLAIN][name])
        for name in ("seconds", "growth")
    )
    return f"; reversible / plain: time {time}, memory {memory}"


def depth_tables(records):
    """First steps against depth, and what proportion would have given."""
    places = ("length", "allocator", "contender", "depth")
    for place, depths in measuring.nest(records, places).items():
        length, allocator, name = place
        firsts = {depth: each["first"] for depth, each in depths.items()}
        least = min(firsts)
        yield (
            f"first step against depth: {name}, {length:,} tokens, "
            f"{allocator} allocator",
            ("blocks", "first step, s", "s/block", "to proportional"),
            [
                (
                    depth,
                    f"{first:.1f}",
                    f"{first / depth:.2f}",
                    f"{first / depth * least / firsts[least]:.2f}",
                )
                for depth, first in sorted(firsts.items())
            ],
        )


def plot(records, options):
    """Time and memory against what varies; first steps against depth."""
    greatest = {
        axis: max(record[axis] for record in records)
        for axis in ("length", "depth")
    }
    depths, lengths = (
        len({record[axis] for record in records})
        for axis in ("depth", "length")
    )
    across = "depth" if depths > 1 and lengths == 1 else "length"
    panels = [
        (across, "seconds", "s/step"),
        (across, "growth", "peak growth (MiB)"),
    ]
    if depths > 1:
        panels.append(("depth", "first", "first step (s)"))
    figure, axes = reporting.make_panels(1, len(panels))
    for panel, (across, value, ylabel) in zip(axes[0], panels, strict=True):
        held = "depth" if across == "length" else "length"
        mine = [each for each in records if each[held] == greatest[held]]
        reporting.draw_lines(
            panel,
            *lines(mine, across, value),
            xlabel=across,
            ylabel=ylabel,
            title=f"{greatest[held]:,} "
            + ("blocks" if held == "depth" else "tokens"),
        )
    axes[0, 0].legend(fontsize="small")
    return figure


def lines(records, across, value):
    """By contender and allocator: points, and how the line looks."""
    points, styles = {}, {}
    colors = {name: f"C{index}" for index, name in enumerate(CONTENDERS)}
    places = ("contender", "allocator", across)
    for (name, allocator), found in measuring.nest(records, places).items():
        line = f"{name}, {allocator}"
        points[line] = [(x, each[value]) for x, each in found.items()]
        dashes = "-" if allocator == "generous" else "--"
        styles[line] = {"color": colors[name], "linestyle": dashes}
    return points, styles
