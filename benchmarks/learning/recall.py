"""Does LSH attention learn to look things up?

    python benchmarks/learning/recall.py --kinds lsh,exact --seeds 0,1,2
    python benchmarks/learning/recall.py --kinds lsh --length 1024 --pairs 64 \\
        --evaluate 16384:1024,65536:4096
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

import models
import numpy as np
import reports
import runs

FILLER = 0
OPTIONS = {
    "length": (256, "tokens of a sequence"),
    "pairs": (16, "keys with values in a sequence"),
    "steps": (2000, "of training"),
    "stages": ("", "length:pairs:steps[:batch size],... instead of these"),
    "batch_size": (16, "sequences in a step"),
    "vocabulary": (8192, "tokens, half keys and half values"),
    "fillers": ("zero", "zero, or random: tokens that are no key here"),
    "learning_rate": (5e-3, runs.RATE_HELP),
    "validate_queries": (2048, "about as many a validation"),
    "evaluate_queries": (8192, "about as many an evaluation at the end"),
    **models.OPTIONS,
    # All that lies near is the key before a value.
    "local_chunk_length": (4, "tokens in a chunk of local attention"),
}
QUICK = {
    "kinds": ("lsh",),
    "length": 64,
    "pairs": 4,
    "steps": 300,
    "vocabulary": 64,
    "batch_size": 32,
    "rounds": (1, 4),
    "evaluate_queries": 1024,
    "validate_queries": 512,
    "evaluate_every": 50,
}


# === Data ===


def recall_batch(rng, batch_size, length, pairs, vocabulary, fillers="zero"):
    """Sequences, labels and weights of one batch.

    Token 0 is the filler, keys are `1 ... vocabulary // 2`, values those
    above. Keys of a sequence are distinct, values need not be.

    Args:
        rng: NumPy generator.
        batch_size: int.
        length: int. Tokens of a sequence, at least `3 * pairs`.
        pairs: int. At most half of the vocabulary.
        vocabulary: int. Number of keys and values, even.
        fillers: `"zero"`, or `"random"`: values, and keys that have no value
            in this sequence.

    Returns:
        int32 tokens, int32 labels and float32 weights, `(batch_size,
        length)`; a weight is 1 at a query and 0 elsewhere.
    """
    half = vocabulary // 2
    _check_sizes(length, pairs, half, fillers)
    every_key = np.broadcast_to(np.arange(1, half + 1), (batch_size, half))
    keys = rng.permuted(every_key, axis=1)[:, :pairs]
    values = rng.integers(half + 1, vocabulary + 1, (batch_size, pairs))
    tokens = np.zeros((batch_size, length), "int32")
    if fillers == "random":
        tokens[:] = _random_fillers(rng, keys, length, vocabulary)
    tokens[:, 0 : 2 * pairs : 2] = keys
    tokens[:, 1 : 2 * pairs : 2] = values
    # Distinct random places, so that queries come in a random order.
    behind = np.arange(2 * pairs, length)
    places = rng.permuted(
        np.broadcast_to(behind, (batch_size, len(behind))), axis=1
    )[:, :pairs]
    labels = np.zeros((batch_size, length), "int32")
    weights = np.zeros((batch_size, length), "float32")
    np.put_along_axis(tokens, places, keys, axis=1)
    np.put_along_axis(labels, places, values, axis=1)
    np.put_along_axis(weights, places, 1.0, axis=1)
    return tokens, labels, weights


def _check_sizes(length, pairs, half, fillers):
    if not 1 <= pairs <= half or length < 3 * pairs:
        raise ValueError(
            "A sequence holds each pair and, behind them, each key again; "
            f"expected 1 <= pairs <= {half}, half of the vocabulary, and "
            f"length >= 3 * pairs. Received: pairs={pairs}, length={length}"
        )
    if fillers not in ("zero", "random"):
        raise ValueError(
            f"Expected 'zero' or 'random'. Received: fillers={fillers!r}"
        )


def _random_fillers(rng, keys, length, vocabulary):
    """Random tokens; keys of the sequence are replaced by random values."""
    batch_size, half = len(keys), vocabulary // 2
    tokens = rng.integers(1, vocabulary + 1, (batch_size, length))
    has_value = np.zeros((batch_size, vocabulary + 1), bool)
    np.put_along_axis(has_value, keys, True, axis=1)
    clash = np.take_along_axis(has_value, tokens, axis=1)
    others = rng.integers(half + 1, vocabulary + 1, tokens.shape)
    return np.where(clash, others, tokens)


def fresh(options, seed, stream, length, pairs, batch_size):
    """A function of an index to a batch."""
    return lambda index: recall_batch(
        runs.random(seed, stream, index),
        batch_size,
        length,
        pairs,
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
        options, seed, runs.VALIDATION, length, pairs, count * batch_size
    )
    return runs.Stage(
        steps,
        fresh(options, seed, runs.TRAINING, *sizes),
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
    count = -(-options.evaluate_queries // (pairs * batch_size)) * batch_size
    batch = fresh(options, seed, runs.EVALUATION, length, pairs, count)
    other = functools.cache(
        lambda: models.with_length(model, kind, options, length, seed)
    )
    for rounds in options.rounds if models.hashes(kind) else [0]:
        runs.evaluate(
            runs.run_folder(options, kind, seed),
            {
                "length": length,
                "pairs": pairs,
                "rounds": rounds,
                "sequences": count,
            },
            lambda: accuracy(other(), rounds, batch(0), batch_size),  # noqa: B023
        )


def accuracy(model, rounds, batch, batch_size):
    found = models.evaluate(model, rounds, batch, batch_size)
    return {"accuracy": found["accuracy"]}


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
