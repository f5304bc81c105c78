"""Does LSH attention find five digits in half a million bytes?

    python benchmarks/learning/passkey.py --kinds lsh --seeds 0
    python benchmarks/learning/passkey.py --evaluate 16384,524288
    python benchmarks/learning/passkey.py --report

Passkey retrieval (Mohtashami and Jaggi 2023, arXiv 2305.16300), byte level:
a document repeats the same sentences, says a passkey of five random digits
at a random place among them, and ends with the question for it and the
answer. Trained with a curriculum of lengths, on the five bytes of the answer
and, for the share `--text-weight`, on the rest of the text.

Counts, at each length of `--evaluate`, the documents whose five digits are
all right: each is the most probable byte, the digits before it given.
`runs.py` says how runs are kept and resumed.
"""

import functools

import batches
import models
import reports
import runs

from keras_reformer.data import ByteTokenizer

OPTIONS = {
    "stages": (
        "512:200:16,2048:60:4,8192:30:1,16384:20:1",
        "length:steps[:batch size],...",
    ),
    "batch_size": (16, "documents in a step, where a stage does not say"),
    "text_weight": (0.1, "of the text, beside 1 for the digits"),
    "validate_documents": (64, "in a validation"),
    "documents": (20, "in an evaluation at the end"),
    **models.OPTIONS,
    "layers": (4, "reversible blocks"),
    "width": (128, "of embeddings and of each stream"),
    "heads": (4, "of attention"),
    "chunk_length": (64, "tokens in a chunk of LSH attention"),
}
QUICK = {
    "stages": "384:200:16",
    "evaluate": (1024,),
    "documents": 4,
    "validate_documents": 16,
    "evaluate_every": 50,
    "layers": 2,
    "width": 64,
}


# === Data ===


def stages(options, seed):
    return [
        make_stage(options, seed, *stage)
        for stage in runs.fields(options.stages)
    ]


def make_stage(options, seed, length, steps, batch_size=None):
    batch_size = batch_size or options.batch_size
    count = -(-options.validate_documents // batch_size) * batch_size
    validation = documents(seed, batches.VALIDATION, count, length)
    return runs.Stage(
        steps,
        documents(
            seed, batches.TRAINING, batch_size, length, options.text_weight
        ),
        lambda: validation(0),
        batch_size,
        {"length": length},
    )


def documents(seed, stream, batch_size, length, text_weight=0.0):
    return functools.partial(
        batches.passkey, seed, stream, batch_size, length, text_weight
    )


# === A run ===


def run(options, kind, seed):
    plan = stages(options, seed)
    longest = max(stage.columns["length"] for stage in plan)
    size = ByteTokenizer.vocabulary_size
    model = models.causal_lm(kind, options, size, longest, seed)
    steps = sum(stage.steps for stage in plan)
    runs.compile_model(model, steps, options, metrics=["accuracy"])
    if runs.train(model, plan, options, kind, seed):
        for length in options.evaluate:
            evaluate(model, options, kind, seed, length)


def evaluate(model, options, kind, seed, length):
    models.evaluate_rounds(
        options,
        kind,
        seed,
        {"length": length, "documents": options.documents},
        lambda: models.with_length(model, kind, options, length, seed),
        batches.Batches(
            documents(seed, batches.EVALUATION, 1, length), options.documents
        ),
        summarize=batches.all_right,
    )


# === Report ===


def report(options):
    table = reports.evaluation_table(
        options,
        "documents with all digits right",
        ("length", "documents"),
        "rounds",
        lambda row: row["all_right"],
    )
    reports.report(options, [reports.training_table(options), table])
    reports.plot_curves(
        options,
        {"val_accuracy": "share of digits right"},
        "Passkey retrieval, fresh documents",
    )


def main():
    parser = runs.make_parser(__doc__, __file__, ("lsh",), OPTIONS)
    parser.add_argument(
        "--evaluate",
        type=runs.numbers,
        default=(16384, 524288),
        help="lengths, with commas between",
    )
    parser.add_argument(
        "--rounds",
        type=runs.numbers,
        default=(4,),
        help="of hashing, in evaluations; 0 for exact attention",
    )
    runs.run_all(runs.parse(parser, QUICK), run, report)


if __name__ == "__main__":
    main()
