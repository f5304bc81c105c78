"""Time and memory of a train step of a whole model, ours beside transformers.

    python benchmarks/run.py model [--lengths 4096 16384] [--rounds 2]
    python benchmarks/run.py model --lengths 4096 --depths 3 6 12

A step is Adam's on the next-token loss of a language model. "plain" is ours
without recomputation; `transformers` runs eagerly with torch's Adam. With
several depths a table says how the first step grows.
"""

import functools

import contenders
import language_model
import measuring
import reporting
from contenders import PUBLISHED, Contender

OURS, PLAIN = "ours, XLA", "plain, XLA"


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
    "transformers Reformer": Contender(torch_step, **PUBLISHED),
}
KEYS = ("length", "depth", "contender")
OPTIONS = {
    "lengths": ([4096, 16384, 65536], "", [128]),
    "depths": ([6], "", [2]),
    "contenders": list(CONTENDERS),
}
AXES = {"length": "lengths", "depth": "depths", "contender": "contenders"}
work = functools.partial(contenders.work, CONTENDERS)


def tables(records, options):
    """A table for every shape, then first steps against depth."""
    title = "{length:,} tokens, {depth} blocks, {allocator} allocator"
    yield from contenders.tables(
        records, title, OURS, contenders.STEP_COLUMNS, reversible_to_plain
    )
    if len({record["depth"] for record in records}) > 1:
        yield from depth_tables(records)


def reversible_to_plain(found):
    """What recomputation costs in time and saves in memory, for a title."""
    if not {OURS, PLAIN} <= set(found):
        return ""
    time, memory = (
        reporting.ratio(found[OURS][name], found[PLAIN][name])
        for name in ("seconds", "growth")
    )
    return f"; reversible / plain: time {time}, memory {memory}"


def depth_tables(records):
    """First steps against depth, and what proportion would have given."""
    title = (
        "first step against depth: {contender}, {length:,} tokens, "
        "{allocator} allocator"
    )
    columns = {
        "blocks": "{depth}",
        "first step, s": "{first:.1f}",
        "s/block": "{each:.2f}",
        "to proportional": "{each/}",
    }
    for name, members in reporting.titled(records, title):
        members.sort(key=lambda each: each["depth"])
        steps = measuring.medians(members, ["depth"])
        for step in steps:
            step["each"] = step["first"] / step["depth"]
        yield name, *reporting.rows(steps, columns, steps[0])


def plot(records, options):
    """Time and memory against what varies; first steps against depth."""
    most, least = (
        {axis: end(each[axis] for each in records) for axis in KEYS[:2]}
        for end in (max, min)
    )
    several = {axis: least[axis] < most[axis] for axis in most}
    across = "length" if several["length"] or not several["depth"] else "depth"
    axes = [
        (across, "seconds", "s/step"),
        (across, "growth", "peak growth (MiB)"),
        ("depth", "first", "first step (s)"),
    ][: 2 + several["depth"]]
    row = []
    for x, y, ylabel in axes:
        held = "depth" if x == "length" else "length"
        mine = [each for each in records if each[held] == most[held]]
        lines = reporting.curves(mine, "{contender}, {allocator}", x, y)
        labels = {"title": f"{held} {most[held]:,}", "xlabel": x}
        row.append({"lines": lines, "ylabel": ylabel, **labels})
    row[0]["legend"] = {"fontsize": "small"}
    return reporting.picture([row])
