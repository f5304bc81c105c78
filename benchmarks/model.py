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
KEYS = ("length", "depth", "contender")
OPTIONS = {
    "lengths": [4096, 16384, 65536],
    "depths": [6],
    "contenders": list(CONTENDERS),
}
QUICK = {"lengths": [128], "depths": [2]}
COLUMNS = {
    "s/step": "{seconds:.3f}",
    "tokens/s": "{rate:.0f}",
    "peak growth, MiB": "{growth:.0f}",
    "first step, s": "{first:.1f}",
}
DEPTH_COLUMNS = {
    "blocks": "{blocks}",
    "first step, s": "{first:.1f}",
    "s/block": "{each:.2f}",
    "to proportional": "{share:.2f}",
}

work = functools.partial(contenders.work, CONTENDERS)


def cases(options):
    axes = {"length": options.lengths, "depth": options.depths}
    return contenders.cases(CONTENDERS, options, **axes)


# === Tables and picture ===


def tables(records, options):
    """A table for every shape, then first steps against depth."""
    places = ("allocator", "depth", "length", "contender")
    found = measuring.nest(records, places)
    for (allocator, depth, length), summaries in found.items():
        title = f"{length:,} tokens, {depth} blocks, {allocator} allocator"
        title += reversible_to_plain(summaries)
        yield reporting.contender_table(title, summaries, OURS, length, COLUMNS)
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
        rates = {n: each["first"] / n for n, each in sorted(depths.items())}
        first_rate = next(iter(rates.values()))
        rows = [
            {
                "blocks": depth,
                "first": depth * rate,
                "each": rate,
                "share": rate / first_rate,
            }
            for depth, rate in rates.items()
        ]
        title = f"first step against depth: {name}, {length:,} tokens, "
        title += f"{allocator} allocator"
        yield title, *reporting.rows(rows, DEPTH_COLUMNS)


def plot(records, options):
    """Time and memory against what varies; first steps against depth."""
    values = {
        axis: {record[axis] for record in records}
        for axis in ("length", "depth")
    }
    several = {axis: len(found) > 1 for axis, found in values.items()}
    across = "length" if several["length"] or not several["depth"] else "depth"
    axes = [
        (across, "seconds", "s/step"),
        (across, "growth", "peak growth (MiB)"),
        ("depth", "first", "first step (s)"),
    ][: 2 + several["depth"]]
    figure, panels = reporting.make_panels(1, len(axes))
    for panel, (axis, value, ylabel) in zip(panels[0], axes, strict=True):
        held = "depth" if axis == "length" else "length"
        most = max(values[held])
        mine = [record for record in records if record[held] == most]
        reporting.draw_lines(
            panel,
            reporting.curves(mine, ("contender", "allocator"), axis, value),
            xlabel=axis,
            ylabel=ylabel,
            title=f"{held} {most:,}",
        )
    panels[0, 0].legend(fontsize="small")
    return figure
