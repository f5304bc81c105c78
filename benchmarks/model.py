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

import contenders
import language_model
import measuring
import reporting
from contenders import Contender

OURS, PLAIN = "ours, XLA", "plain, XLA"
KEYS = ("length", "depth", "contender")
QUICK = {"lengths": [128], "depths": [2]}


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
OPTIONS = {
    "lengths": [4096, 16384, 65536],
    "depths": [6],
    "contenders": list(CONTENDERS),
}


def cases(options):
    """The contenders of a shape side by side."""
    return measuring.grid(
        length=options.lengths,
        depth=options.depths,
        contender=contenders.chosen(CONTENDERS, options),
    )


def work(case):
    return contenders.work(CONTENDERS, case)


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
            length,
            {
                "s/step": "{seconds:.3f}",
                "tokens/s": "{rate:.0f}",
                "peak growth, MiB": "{growth:.0f}",
                "first step, s": "{first:.1f}",
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
        rows = [
            {
                "blocks": depth,
                "first": first,
                "each": first / depth,
                "share": first / depth * least / firsts[least],
            }
            for depth, first in sorted(firsts.items())
        ]
        title = f"first step against depth: {name}, {length:,} tokens, "
        columns = {
            "blocks": "{blocks}",
            "first step, s": "{first:.1f}",
            "s/block": "{each:.2f}",
            "to proportional": "{share:.2f}",
        }
        title += f"{allocator} allocator"
        yield title, *reporting.rows(rows, columns)


def plot(records, options):
    """Time and memory against what varies; first steps against depth."""
    values = {
        axis: {record[axis] for record in records}
        for axis in ("length", "depth")
    }
    depths = len(values["depth"]) > 1
    across = "depth" if depths and len(values["length"]) == 1 else "length"
    axes = [
        (across, "seconds", "s/step"),
        (across, "growth", "peak growth (MiB)"),
        *([("depth", "first", "first step (s)")] if depths else []),
    ]
    figure, panels = reporting.make_panels(1, len(axes))
    for panel, (axis, value, ylabel) in zip(panels[0], axes, strict=True):
        held, unit = {"length": ("depth", "blocks")}.get(
            axis, ("length", "tokens")
        )
        most = max(values[held])
        mine = [record for record in records if record[held] == most]
        labels = {"xlabel": axis, "ylabel": ylabel, "title": f"{most:,} {unit}"}
        reporting.draw_lines(panel, *lines(mine, axis, value), **labels)
    panels[0, 0].legend(fontsize="small")
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
