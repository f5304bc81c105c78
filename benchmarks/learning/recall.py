"""Does LSH attention learn to look things up?

    python benchmarks/learning/recall.py --kinds lsh,exact --seeds 0,1,2
    python benchmarks/learning/recall.py --kinds lsh \\
        --stages 1024:256:800:32,4096:512:250:8 \\
        --evaluate 1024:256,16384:1024,65536:4096
    python benchmarks/learning/recall.py --report

Multi-query associative recall (Zoology, Arora et al. 2023, arXiv 2312.04927):
a sequence begins with pairs of a key and a value; behind them each key comes
once more, at a random place among fillers, and is to be answered with its
value. Only these positions count. A pair lies anywhere in the text, so a
model finds it by content or not at all.

Prints accuracy on fresh sequences while it trains and draws it; then that of
the trained weights by rounds of hashing, at the trained length and at those
of `--evaluate`, for which a model of that `max_sequence_length` gets the
weights. `runs.py` says how runs are kept and resumed.
"""

import functools

import batches
import models
import reports
import runs

OPTIONS = {
    "length": (1024, "tokens of a sequence"),
    "pairs": (256, "keys with values in a sequence"),
    "steps": (800, "of training"),
    "stages": ("", "length:pairs:steps[:batch size],... instead of these"),
    "batch_size": (32, "sequences in a step"),
    "vocabulary": (8192, "tokens, half keys and half values"),
    "fillers": ("random", "random: tokens that are no key here; or zero"),
    "learning_rate": (5e-3, runs.RATE_HELP),
    "validate_queries": (2048, "about as many a validation"),
    "evaluate_queries": (8192, "about as many an evaluation at the end"),
    **models.OPTIONS,
    # All that lies near is the key before a value.
    "local_chunk_length": (4, "tokens in a chunk of local attention"),
    # Any head may find the pair, and 32 dimensions tell keys apart.
    "heads": (4, "of attention"),
    "key_dim": (32, models.OPTIONS["key_dim"][1]),
    # Texts are crowded: a bucket is to hold fewer tokens than a window.
    "chunks_before": (4, models.OPTIONS["chunks_before"][1]),
    "buckets": ("length", models.OPTIONS["buckets"][1]),
    # A value is its own logit, and a text says nothing by where it says it.
    "tie_embeddings": (True, models.OPTIONS["tie_embeddings"][1]),
    "position_embedding": ("none", models.OPTIONS["position_embedding"][1]),
}
QUICK = {
    "kinds": ("lsh",),
    "length": 64,
    "pairs": 8,
    "steps": 300,
    "vocabulary": 512,
    "batch_size": 32,
    "rounds": (1, 4),
    "evaluate_queries": 1024,
    "validate_queries": 512,
    "evaluate_every": 50,
}


# === Data ===


def fresh(options, seed, stream, length, pairs, batch_size):
    """A function of an index to a batch."""
    return functools.partial(
        batches.recall,
        seed,
        stream,
        (batch_size, length, pairs),
        options.vocabulary,
        options.fillers,
    )


def stages(options, seed):
    """What a run trains on, the index of a batch being the run's step."""
    single = (options.length, options.pairs, options.steps)
    return [
        make_stage(options, seed, *stage)
        for stage in runs.fields(options.stages) or [single]
    ]


def make_stage(options, seed, length, pairs, steps, batch_size=None):
    batch_size = batch_size or options.batch_size
    sizes = length, pairs, batch_size
    count = -(-options.validate_queries // (pairs * batch_size))
    validation = fresh(
        options, seed, batches.VALIDATION, length, pairs, count * batch_size
    )
    return runs.Stage(
        steps,
        fresh(options, seed, batches.TRAINING, *sizes),
        lambda: validation(0),
        batch_size,
        {"length": length, "pairs": pairs},
    )


# === A run ===


def run(options, kind, seed):
    plan = stages(options, seed)
    # Token 0 comes on top of keys and values.
    model = models.causal_lm(
        kind, options, options.vocabulary + 1, longest(plan), seed
    )
    steps = sum(stage.steps for stage in plan)
    runs.compile_model(model, steps, options, metrics=["accuracy"])
    if runs.train(model, plan, options, kind, seed):
        last = plan[-1].columns
        cases = [(last["length"], last["pairs"]), *options.evaluate]
        for length, pairs in dict.fromkeys(cases):
            evaluate(model, options, kind, seed, length, pairs)


def longest(plan):
    return max(stage.columns["length"] for stage in plan)


def evaluate(model, options, kind, seed, length, pairs):
    """Accuracy of the trained weights by rounds, kept in the run's folder."""
    tokens = options.batch_size * model.backbone.max_sequence_length
    batch_size = max(1, min(options.batch_size, tokens // length))
    count = -(-options.evaluate_queries // (pairs * batch_size))
    models.evaluate_rounds(
        options,
        kind,
        seed,
        {"length": length, "pairs": pairs, "sequences": count * batch_size},
        lambda: models.with_length(model, kind, options, length, seed),
        batches.Batches(
            fresh(options, seed, batches.EVALUATION, length, pairs, batch_size),
            count,
        ),
    )


# === Report ===


def report(options):
    evaluations = reports.evaluation_table(
        options,
        "accuracy of the trained weights by rounds of hashing, 0: none",
        ("length", "pairs", "sequences"),
        "rounds",
        lambda row: f"{row['accuracy']:.4f}",
    )
    reports.report(options, [reports.training_table(options), evaluations])
    reports.plot_curves(
        options,
        {"val_accuracy": "accuracy on fresh sequences"},
        "Associative recall",
    )


# === Command ===


def parse():
    parser = runs.make_parser(
        __doc__, __file__, ("lsh", "lsh-chunk", "exact", "local"), OPTIONS
    )
    parser.add_argument(
        "--evaluate",
        type=runs.fields,
        default=(),
        help="length:pairs,... to evaluate the trained weights at",
    )
    parser.add_argument(
        "--rounds",
        type=runs.numbers,
        default=(1, 2, 4, 8),
        help="of hashing, in evaluations; 0 for exact attention",
    )
    return runs.parse(parser, QUICK)


def main():
    runs.run_all(parse(), run, report)


if __name__ == "__main__":
    main()
