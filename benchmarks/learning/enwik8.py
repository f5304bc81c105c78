"""Does a language model learn as much by LSH attention as by exact attention?

    python benchmarks/learning/enwik8.py --kinds lsh,lsh-chunk,exact --seeds 0,1
    python benchmarks/learning/enwik8.py --kinds lsh,lsh-plain --seeds 0
    python benchmarks/learning/enwik8.py --report

A byte-level model of 4,096 tokens on the first bytes of enwik8: equal shapes,
steps, seeds and batches for all kinds. The text's last twentieth is the test
set, the twentieth before it is for validation. Prints bits per byte while
training, and those of the trained weights on the test set by rounds of
hashing and with exact attention.

`lsh-plain` is the same model with ordinary backpropagation in the place of
the reversible stack's (`recompute=False`): the report says how far the curves
of one seed lie apart, beside how far those of two seeds do.

`runs.py` says how runs are kept and resumed.
"""

import functools
import itertools

import batches
import models
import numpy as np
import reports
import runs

from keras_reformer import BitsPerByte, data

OPTIONS = {
    "data": (runs.DATA / "enwik8.first4154399", "a file"),
    "length": (4096, "tokens of a sequence"),
    "batch_size": (2, "sequences in a step"),
    "steps": (2000, "of training"),
    "learning_rate": (1e-3, runs.RATE_HELP),
    "validate_windows": (16, "sequences in a validation"),
    "test_windows": (
        0,
        "sequences in an evaluation, in whole batches; 0 for all",
    ),
    **models.OPTIONS,
    "layers": (6, "reversible blocks"),
    "width": (256, "of embeddings and of each stream"),
    "heads": (4, "of attention"),
    "chunk_length": (64, "tokens in a chunk of LSH attention"),
    "local_chunk_length": (64, "tokens in a chunk of local attention"),
}
QUICK = {
    "kinds": ("lsh",),
    "length": 512,
    "steps": 60,
    "learning_rate": 3e-3,
    "evaluate_every": 20,
    "layers": 2,
    "width": 64,
    "validate_windows": 4,
    "test_windows": 16,
    "rounds": (1, 4),
}


# === Data ===


def first_windows(text, length, count):
    """The first so many windows, or all, which do not overlap."""
    most = (len(text) - 1) // length
    count = min(count or most, most)
    return batches.windows(text, length * np.arange(count), length)


def read(options):
    text = data.read_corpus(options.data)
    return data.split_by_position(text, validation=0.05, test=0.05)


def stage(options, text, seed):
    return runs.Stage(
        options.steps,
        functools.partial(
            batches.text_windows,
            seed,
            batches.TRAINING,
            options.batch_size,
            options.length,
            text.train,
        ),
        lambda: first_windows(
            text.validation, options.length, options.validate_windows
        ),
        options.batch_size,
    )


# === A run ===


def run(options, kind, seed):
    text = read(options)
    size = data.ByteTokenizer.vocabulary_size
    model = models.causal_lm(kind, options, size, options.length, seed)
    print(f"{kind}: {model.count_params():,} parameters")
    metrics = [BitsPerByte()]
    runs.compile_model(model, options.steps, options, metrics=metrics)
    if runs.train(model, [stage(options, text, seed)], options, kind, seed):
        evaluate(model, text.test, options, kind, seed)


def evaluate(model, text, options, kind, seed):
    given = batches.parts(
        first_windows(text, options.length, options.test_windows),
        options.batch_size,
    )
    models.evaluate_rounds(
        options,
        kind,
        seed,
        {"windows": given.count * options.batch_size},
        lambda: model,
        given,
        {"metrics": [BitsPerByte()]},
    )


# === Report ===


def report(options):
    evaluations = reports.evaluation_table(
        options,
        "bits per byte on the test set by rounds, 0: exact attention",
        ("windows",),
        "rounds",
        lambda row: f"{row['bits_per_byte']:.4f}",
    )
    tables = [curve_table(options), evaluations, distance_table(options)]
    if options.data.exists():
        tables.append(yardstick_table(options))
    reports.report(options, tables)
    reports.plot_curves(
        options,
        {"val_bits_per_byte": "bits per byte, validation"},
        f"enwik8, {options.length:,} tokens",
    )


def curve_table(options):
    """Validation at each quarter of the steps."""
    found = reports.stored_runs(options)
    rows = [
        [kind, seed]
        + [
            f"{row['val_bits_per_byte']:.4f} ({row['step']})"
            for row in (curve[(len(curve) * i - 1) // 4] for i in range(1, 5))
        ]
        for (kind, seed), curve in found.items()
    ]
    header = ["kind", "seed", "a quarter", "half", "three quarters", "last"]
    return "bits per byte, validation (at step)", header, rows


def distance_table(options):
    """How far two runs' curves lie apart that differ in one respect."""
    found = reports.stored_runs(options)
    rows = []
    for (one, curve), (two, other) in itertools.combinations(found.items(), 2):
        is_plain = {f"{one[0]}-plain", one[0]} == {one[0], two[0]}
        if (one[0] == two[0]) or (is_plain and one[1] == two[1]):
            rows.append([_name(one), _name(two), *_distance(curve, other)])
    header = ["curve", "other", "greatest difference", "last"]
    return "bits per byte, validation: distance of curves", header, rows


def _name(run):
    return f"{run[0]}, seed {run[1]}"


def _distance(curve, other):
    name = "val_bits_per_byte"
    pairs = zip(curve, other, strict=False)
    apart = [abs(one[name] - two[name]) for one, two in pairs]
    return f"{max(apart):.2g}", f"{apart[-1]:.2g}"


def yardstick_table(options):
    text = read(options).test
    return (
        "bits per byte on the test set without a model",
        ["what", "bits per byte"],
        [
            ["frequencies of bytes", f"{data.order0_entropy(text):.4f}"],
            ["zlib", f"{data.zlib_bits_per_byte(text):.4f}"],
            ["bigrams", f"{data.bigram_bits_per_byte(text):.4f}"],
        ],
    )


def main():
    parser = runs.make_parser(__doc__, __file__, ("lsh", "exact"), OPTIONS)
    parser.add_argument(
        "--rounds",
        type=runs.numbers,
        default=(0, 1, 2, 4, 8),
        help="of hashing, in evaluations; 0 for exact attention",
    )
    runs.run_all(runs.parse(parser, QUICK), run, report)


if __name__ == "__main__":
    main()
