"""Table 2 of the Reformer paper: training and evaluating with other rounds.

    python benchmarks/learning/duplication.py --seeds 0,1,2
    python benchmarks/learning/duplication.py --length 1024 --symbols 127 \\
        --width 256 --feed-forward 256 --steps 150000
    python benchmarks/learning/duplication.py --report

An example is 0w0w: a random string w behind a 0, twice. A model of one layer,
all of whose attention is LSH attention with chunks much shorter than the way
back, learns to predict the second w. It is trained with exact attention or
with 4, 2 or 1 rounds of hashing, and each is evaluated exactly and with 8, 4,
2 and 1 rounds (Kitaev et al. 2020, section 5; the paper's 4 runs had 150,000
steps at the sizes above, which are not the default). The table has the
paper's numbers beside those found, means over the seeds.

With `--generate N` the trained models also write the second w themselves,
greedily, from their caches; counted are the strings without an error.

`runs.py` says how runs are kept and resumed.
"""

import functools
import statistics

import batches
import models
import numpy as np
import reports
import runs

ROUNDS = (0, 8, 4, 2, 1)
PAPER = {
    "exact": ("100", "94.8", "92.5", "76.9", "52.5"),
    "lsh-4": ("0.8", "100", "99.9", "99.4", "91.9"),
    "lsh-2": ("0.8", "100", "99.9", "98.1", "86.8"),
    "lsh-1": ("0.8", "99.9", "99.6", "94.8", "77.9"),
}
OPTIONS = {
    "length": (256, "of 0w0w, even"),
    "symbols": (32, "that w is made of"),
    "batch_size": (32, "examples in a step"),
    "steps": (600, "of training"),
    "validate_examples": (128, "in a validation"),
    "examples": (512, "in an evaluation at the end"),
    "generate": (0, "strings to copy from the cache"),
    **models.OPTIONS,
    "layers": (1, "reversible blocks"),
    "width": (128, "of embeddings and of each stream"),
    "heads": (4, "of attention"),
    "feed_forward": (128, "width inside"),
    "attention": ("lsh", "in turn, over the blocks"),
    "chunk_length": (16, "tokens in a chunk of LSH attention"),
    "duplicates": ("discount", "how pairs that rounds share count"),
    "position_embedding": (
        "learned",
        "as of ReformerBackbone; or columns: axial, with a symbol and where "
        "it is predicted in one column, which is easier",
    ),
}
QUICK = {
    "kinds": ("lsh-2",),
    "length": 64,
    "symbols": 8,
    "steps": 300,
    "width": 64,
    "feed_forward": 64,
    "chunk_length": 8,
    "learning_rate": 5e-3,
    "evaluate_every": 100,
}


# === Data ===


def examples(options, seed, stream, batch_size):
    return functools.partial(
        batches.duplication,
        seed,
        stream,
        batch_size,
        options.length,
        options.symbols,
    )


# === A run ===


def run(options, kind, seed):
    model = make_model(options, kind, seed)
    runs.compile_model(model, options.steps, options, metrics=["accuracy"])
    batch_size = options.batch_size
    count = -(-options.validate_examples // batch_size) * batch_size
    validation = examples(options, seed, batches.VALIDATION, count)
    stage = runs.Stage(
        options.steps,
        examples(options, seed, batches.TRAINING, batch_size),
        lambda: validation(0),
        batch_size,
    )
    if runs.train(model, [stage], options, kind, seed):
        evaluate(model, options, kind, seed)
        if options.generate and not options.export:
            generate(model, options, kind, seed)


def make_model(options, kind, seed):
    positions = {}
    if options.position_embedding == "columns":
        # A symbol is predicted `length / 2 - 1` places behind itself.
        columns = options.length // 2 - 1
        positions["position_embedding"] = "axial"
        positions["axial_shape"] = (-(-options.length // columns), columns)
    return models.causal_lm(
        kind, options, options.symbols + 1, options.length, seed, **positions
    )


def evaluate(model, options, kind, seed):
    """Accuracy on the second w, exactly and by rounds."""
    batch_size = options.batch_size
    count = -(-options.examples // batch_size)
    models.evaluate_rounds(
        options,
        kind,
        seed,
        {"examples": count * batch_size},
        lambda: model,
        batches.Batches(
            examples(options, seed, batches.EVALUATION, batch_size), count
        ),
        rounds=ROUNDS,
    )


def generate(model, options, kind, seed):
    """How many fresh strings the model copies from its cache."""
    count = options.generate

    def copies():
        batch = examples(options, seed, batches.EVALUATION, count)
        tokens, half = batch(1)[0], options.length // 2
        prompts = tokens[:, : half + 1]
        found = model.generate(prompts, options.length, sampler="greedy")
        return {"copied": int((np.stack(found) == tokens).all(axis=1).sum())}

    _, changes = models.parse_kind(kind)
    rounds = changes.get("num_hashes", options.num_hashes)
    models.attend(model.backbone, rounds if models.hashes(kind) else 0)
    folder = runs.run_folder(options, kind, seed)
    runs.evaluate(folder, {"generated": count}, copies)


# === Report ===


def report(options):
    copied = reports.evaluation_table(
        options,
        "strings copied without an error from the cache",
        (),
        "generated",
        lambda row: row["copied"],
    )
    tables = [
        accuracy_table(options),
        reports.training_table(options),
        copied,
    ]
    reports.report(options, [each for each in tables if each[2]])
    reports.plot_curves(
        options,
        {"val_accuracy": "accuracy on the second w"},
        f"0w0w, {options.length:,} tokens, {options.symbols} symbols",
    )


def accuracy_table(options):
    """Rows: how a model was trained; columns: how it was evaluated."""
    found = {}
    for (kind, _), rows in reports.stored_runs(
        options, "evaluations.csv"
    ).items():
        for row in rows:
            if isinstance(row.get("accuracy"), float):
                key = kind, row["rounds"]
                found.setdefault(key, []).append(row["accuracy"])
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in found):
        paper = PAPER.get(kind, [""] * len(ROUNDS))
        cells = [_cell(found.get((kind, rounds))) for rounds in ROUNDS]
        seeds = len(found[kind, ROUNDS[0]])
        rows.append([kind, seeds, *cells, *paper])
    names = ["exact", *(f"LSH-{rounds}" for rounds in ROUNDS[1:])]
    header = ["trained", "seeds", *names, *(f"paper {x}" for x in names)]
    return "accuracy on the second w, %, by evaluation", header, rows


def _cell(accuracies):
    if not accuracies:
        return ""
    return f"{100 * statistics.mean(accuracies):.1f}"


def main():
    parser = runs.make_parser(
        __doc__, __file__, ("exact", "lsh-4", "lsh-2", "lsh-1"), OPTIONS
    )
    runs.run_all(runs.parse(parser, QUICK), run, report)


if __name__ == "__main__":
    main()
