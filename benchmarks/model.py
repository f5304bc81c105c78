"""Time and memory of a train step of a whole model, ours beside transformers.

    python benchmarks/model.py [--lengths 4096 16384] [--rounds 2]
    python benchmarks/model.py --lengths 4096 --depths 3 6 12

A step is Adam's on the next-token loss of a language model: local and LSH
attention in turn, chunks of 64, 4 rounds, axial positions, no dropout, one
sequence. "plain" is ours without recomputation; `transformers` runs eagerly
with torch's Adam. The first step holds tracing and compiling; with several
depths a table says how it grows. Each case runs in a process of its own (see
`measuring.py`). Saves `docs/model.png`.
"""

import argparse
import itertools
import math

import buckets
import measuring
from buckets import CHUNK

OURS, PLAIN = "ours, XLA", "plain, XLA"
VOCABULARY = 258
WIDTH = 256
HEADS = 4
FEED_FORWARD = 1024
HASHES = 4
KEYS = ("allocator", "depth", "length", "variant")


# === Steps ===


def keras_step(case, recompute, jit_compile):
    """A step of `ReformerCausalLM`."""
    import keras

    import keras_reformer

    model = keras_reformer.ReformerCausalLM(
        vocabulary_size=VOCABULARY,
        num_layers=case["depth"],
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=FEED_FORWARD,
        max_sequence_length=case["length"],
        num_hashes=HASHES,
        chunk_length=CHUNK,
        recompute=recompute,
        seed=0,
    )
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=jit_compile)
    tokens = draw_tokens(case)
    return lambda: model.train_on_batch(tokens)


def torch_step(case):
    """A step of `ReformerModelWithLMHead` of the same shape."""
    import torch
    from transformers import ReformerModelWithLMHead

    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    model = ReformerModelWithLMHead(transformers_config(case)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    tokens = torch.tensor(draw_tokens(case))

    def step():
        optimizer.zero_grad()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def transformers_config(case):
    from transformers import ReformerConfig

    return ReformerConfig(
        attn_layers=[("local", "lsh")[i % 2] for i in range(case["depth"])],
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        attention_head_size=WIDTH // HEADS,
        feed_forward_size=FEED_FORWARD,
        hidden_act="gelu",
        is_decoder=True,
        max_position_embeddings=case["length"],
        axial_pos_shape=near_square(case["length"]),
        axial_pos_embds_dim=[WIDTH // 4, WIDTH - WIDTH // 4],
        num_hashes=HASHES,
        num_buckets=case["num_buckets"],
        lsh_attn_chunk_length=CHUNK,
        local_attn_chunk_length=CHUNK,
        hidden_dropout_prob=0.0,
        lsh_attention_probs_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0,
        use_cache=False,
    )


def near_square(length):
    """Two factors of a length, as near each other as they get."""
    first = next(n for n in range(math.isqrt(length), 0, -1) if length % n == 0)
    return [first, length // first]


def draw_tokens(case):
    import numpy as np

    shape = (1, case["length"])
    return np.random.default_rng(0).integers(VOCABULARY, size=shape)


VARIANTS = {
    OURS: (lambda case: keras_step(case, True, True), ("tensorflow",)),
    "ours, no XLA": (
        lambda case: keras_step(case, True, False),
        ("tensorflow",),
    ),
    PLAIN: (lambda case: keras_step(case, False, True), ("tensorflow",)),
    "transformers Reformer": (torch_step, ("torch", "transformers")),
}


# === Cases ===


def cases(options):
    """All cases of a round, the variants of a shape side by side."""
    packages = {name: VARIANTS[name][1] for name in options.variants}
    names = list(measuring.installed(packages))
    known = buckets.num_buckets(options.lengths)
    for length, depth, allocator, name in itertools.product(
        options.lengths, options.depths, options.allocators, names
    ):
        yield {
            "variant": name,
            "length": length,
            "depth": depth,
            "allocator": allocator,
            "num_buckets": known[length],
        }


def title(case):
    return (
        f"{case['length']:>7} tokens {case['depth']:>3} blocks  "
        f"{case['allocator']:<10}{case['variant']:<22}"
    )


def work(case):
    """What a worker does: prints its answer."""
    step = VARIANTS[case["variant"]][0](case)
    measuring.answer(measuring.measure(step, case["repeats"]))


# === Tables and picture ===


def tables(records):
    """A table for every shape, then first steps against depth."""
    header = (
        "model",
        "s/step",
        "tokens/s",
        "peak growth, MiB",
        "first step, s",
        "time / ours",
        "memory / ours",
    )
    found = {}
    for (*place, name), summary in measuring.group(records, KEYS).items():
        found.setdefault(tuple(place), {})[name] = summary
    for (allocator, depth, length), rows in found.items():
        yield (
            f"{length:,} tokens, {depth} blocks, {allocator} allocator"
            + reversible_to_plain(rows),
            header,
            [row(name, rows, length) for name in rows],
        )
    if len({depth for _, depth, _ in found}) > 1:
        yield from depth_tables(records)


def row(name, rows, length):
    """A variant's row, with ratios to ours where ours was measured."""
    summary, ours = rows[name], rows.get(OURS, {})
    return (
        name,
        f"{summary['seconds']:.3f}",
        f"{length / summary['seconds']:.0f}",
        f"{summary['growth']:.0f}",
        f"{summary['first']:.1f}",
        measuring.ratio(summary["seconds"], ours.get("seconds")),
        measuring.ratio(summary["growth"], ours.get("growth")),
    )


def reversible_to_plain(rows):
    """What recomputation costs in time and saves in memory, for a title."""
    if not {OURS, PLAIN} <= set(rows):
        return ""
    ours, plain = rows[OURS], rows[PLAIN]
    return (
        f"; reversible / plain: time {ours['seconds'] / plain['seconds']:.2f}"
        f", memory {ours['growth'] / plain['growth']:.2f}"
    )


def depth_tables(records):
    """First steps against depth, and what proportion would have given."""
    summaries = measuring.group(
        records, ("length", "allocator", "variant", "depth")
    )
    found = {}
    for (*place, depth), summary in summaries.items():
        found.setdefault(tuple(place), {})[depth] = summary["first"]
    for (length, allocator, name), firsts in found.items():
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


def plot(records, picture):
    """Time and memory against what varies; first steps against depth."""
    import matplotlib.pyplot as plt

    lengths, depths = (
        len({record[axis] for record in records})
        for axis in ("length", "depth")
    )
    across = "depth" if depths > 1 and lengths == 1 else "length"
    axes = [
        (across, "seconds", "s/step"),
        (across, "growth", "peak growth (MiB)"),
    ]
    if depths > 1:
        axes.append(("depth", "first", "first step (s)"))
    figure, panels = plt.subplots(
        1, len(axes), figsize=(5 * len(axes), 4), layout="constrained"
    )
    for panel, (across, value, label) in zip(panels, axes, strict=True):
        plot_lines(records, panel, across, value)
        panel.set(xlabel=across, ylabel=label, title=held(records, across))
        measuring.start_at_zero(panel)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(picture, dpi=120)


def greatest_other(records, across):
    """Of length and depth the one not plotted, and its greatest value."""
    other = "depth" if across == "length" else "length"
    return other, max(record[other] for record in records)


def held(records, across):
    other, fixed = greatest_other(records, across)
    return f"{fixed:,} {'blocks' if other == 'depth' else 'tokens'}"


def plot_lines(records, panel, across, value):
    """A line for each variant and allocator."""
    other, fixed = greatest_other(records, across)
    for color, name in enumerate(VARIANTS):
        mine = [
            record
            for record in records
            if record["variant"] == name and record[other] == fixed
        ]
        allocators = dict.fromkeys(record["allocator"] for record in mine)
        for style, allocator in zip(("-", "--"), allocators, strict=False):
            chosen = [each for each in mine if each["allocator"] == allocator]
            points = measuring.group(chosen, (across,))
            panel.plot(
                [place for (place,) in points],
                [summary[value] for summary in points.values()],
                style,
                color=f"C{color}",
                marker="o",
                label=f"{name}, {allocator}",
            )


# === Command ===


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[4096, 16384, 65536]
    )
    parser.add_argument("--depths", type=int, nargs="+", default=[6])
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)
    )
    measuring.add_options(parser, measuring.DOCS / "model.png")
    return parser.parse_args()


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
