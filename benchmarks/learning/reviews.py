"""Does LSH attention learn from real texts what exact attention learns?

    python benchmarks/learning/reviews.py --kinds lsh,exact --seeds 0,1,2
    python benchmarks/learning/reviews.py --objective none --folder FOLDER
    python benchmarks/learning/reviews.py --test

Sentiment of movie reviews (Pang and Lee's polarity data set 2.0: 2,000 of
them), byte by byte, from the first 4,096 bytes, as in Long Range Arena's Text
task. The model first learns the training reviews themselves, as a masked or a
causal language model (Amos et al. 2023, arXiv 2310.02980), then a classifier
on its weights learns the labels.

A hash of each file's name says whether it is for training, validation or
test (80, 10 and 10 in 100). The test set is read with `--test` alone, once
options have been chosen by the validation set.

Pretraining has runs of its own, in `pretraining/` of the folder or where
`--pretraining` says, so that several settings may share one. `runs.py` says
how runs are kept and resumed.
"""

import argparse
import functools
import hashlib
import pathlib
import zipfile

import batches
import keras
import models
import numpy as np
import reports
import runs

import keras_reformer

SPLITS = ("train", "validation", "test")
VOCABULARY = batches.HIDDEN + 1
PRETRAINING = {
    "objective": ("masked", "masked, causal, or none for no pretraining"),
    "mask_rate": (0.15, "share of bytes that are hidden"),
    "pretrain_steps": (3000, "of pretraining"),
    "pretrain_batch_size": (8, "reviews in a step of pretraining"),
    "pretrain_learning_rate": (1e-3, "peak in pretraining"),
}
OPTIONS = {
    "data": (runs.DATA / "movie_reviews.zip", "a file"),
    "length": (4096, "tokens of a review; what comes later is cut"),
    "steps": (1000, "of training the classifier"),
    "batch_size": (8, "reviews in a step"),
    "learning_rate": (5e-4, runs.RATE_HELP),
    "head_dropout": (0.1, "before the classifier's dense layers"),
    "crop": (False, "train on a random part of long reviews, not the first"),
    "test": (False, "evaluate on the test set too"),
    **PRETRAINING,
    **models.OPTIONS,
    "layers": (4, "reversible blocks"),
    "width": (128, "of embeddings and of each stream"),
    "heads": (4, "of attention"),
    "chunk_length": (64, "tokens in a chunk of LSH attention"),
    "local_chunk_length": (32, "tokens in a chunk of local attention"),
}
QUICK = {
    "kinds": ("lsh",),
    "length": 256,
    "steps": 40,
    "pretrain_steps": 40,
    "evaluate_every": 20,
    "layers": 2,
    "width": 32,
    "heads": 2,
}


# === Data ===


def split_of(name):
    """The split of a review, by its folder and file name."""
    digest = hashlib.sha256(name.encode()).digest()
    number = int.from_bytes(digest[:8], "big") % 10
    return SPLITS[max(number - 7, 0)]


def read(path, split):
    """The reviews of one split; others' are not read."""
    texts, labels = [], []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            parts = pathlib.PurePosixPath(name).parts
            if parts[-1].endswith(".txt") and parts[-2] in ("neg", "pos"):
                if split_of("/".join(parts[-2:])) == split:
                    texts.append(archive.read(name))
                    labels.append(parts[-2] == "pos")
    return batches.Reviews(texts, np.array(labels, "int32"))


def whole_batches(batch, batch_size):
    """Inputs, labels and weights; rows of weight zero fill the last batch."""
    inputs, labels = batch
    count = len(labels)
    order = np.arange(-(-count // batch_size) * batch_size) % count
    weights = (np.arange(len(order)) < count).astype("float32")
    inputs = {name: rows[order] for name, rows in inputs.items()}
    return inputs, labels[order], weights


# === A run ===


def run(options, kind, seed):
    if options.objective not in ("masked", "causal", "none"):
        raise ValueError(
            "Expected 'masked', 'causal' or 'none'. Received: "
            f"objective={options.objective!r}"
        )
    reviews = read(options.data, "train")
    model, start = make_classifier(options, kind, seed), None
    if options.objective != "none":
        first = pretraining_of(options)
        pretrained = pretrain(first, reviews, kind, seed)
        if pretrained is None:
            return
        model.backbone.set_weights(pretrained.backbone.get_weights())
        start = runs.Start(runs.run_folder(first, kind, seed), pretrained)
    runs.compile_model(model, options.steps, options, **scoring())
    stage = labelled_stage(options, reviews, seed)
    if runs.train(model, [stage], options, kind, seed, start):
        for split in SPLITS[1 : 3 if options.test else 2]:
            evaluate(model, options, kind, seed, split)


def make_classifier(options, kind, seed):
    backbone = models.backbone(
        kind, options, VOCABULARY, options.length, seed, causal=False
    )
    return keras_reformer.ReformerClassifier(
        backbone=backbone, num_classes=2, head_dropout=options.head_dropout
    )


def scoring():
    """The loss and the metric of the classifier."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": loss, "weighted_metrics": ["accuracy"]}


def pretraining_of(options):
    """The options of the pretraining, which those of the rest leave alone."""
    names = (
        "length",
        "kinds",
        "export",
        *PRETRAINING,
        *models.OPTIONS,
        *runs.OPTIMIZER,
    )
    folder = options.pretraining or options.folder / "pretraining"
    return argparse.Namespace(
        **{name: getattr(options, name) for name in names}
        | {
            "learning_rate": options.pretrain_learning_rate,
            "folder": folder,
            "picture": folder / "learning.png",
        }
    )


def pretrain(options, reviews, kind, seed):
    """A model that knows texts, None if it diverged."""
    causal = options.objective == "causal"
    make = keras_reformer.ReformerMaskedLM
    if causal:
        make = keras_reformer.ReformerCausalLM
    backbone = models.backbone(
        kind, options, VOCABULARY, options.length, seed, causal=causal
    )
    model = make(backbone=backbone, tie_embeddings=options.tie_embeddings)
    steps = options.pretrain_steps
    runs.compile_model(model, steps, options, metrics=["accuracy"])
    stage = language_stage(options, reviews, seed)
    return model if runs.train(model, [stage], options, kind, seed) else None


def language_stage(options, reviews, seed):
    """The validation is on parts of the training texts, hidden anew."""

    def batch(stream, count):
        return functools.partial(
            batches.language,
            seed,
            stream,
            count,
            reviews.texts,
            options.length,
            options.objective,
            options.mask_rate,
        )

    batch_size = options.pretrain_batch_size
    validation = batch(batches.VALIDATION, 8 * batch_size)
    return runs.Stage(
        options.pretrain_steps,
        batch(batches.TRAINING, batch_size),
        lambda: validation(0),
        batch_size,
    )


def labelled_stage(options, reviews, seed):
    return runs.Stage(
        options.steps,
        functools.partial(
            batches.labelled,
            seed,
            options.batch_size,
            reviews,
            options.length,
            options.crop,
        ),
        lambda: split_batch(options, "validation"),
        options.batch_size,
    )


def split_batch(options, split):
    reviews = read(options.data, split)
    inputs = batches.token_rows(reviews.texts, options.length)
    return whole_batches((inputs, reviews.labels), options.batch_size)


def evaluate(model, options, kind, seed, split):
    """Accuracy on a split by rounds of hashing."""
    batch = split_batch(options, split)
    models.evaluate_rounds(
        options,
        kind,
        seed,
        {"split": split, "reviews": int(batch[2].sum())},
        lambda: model,
        batches.parts(batch, options.batch_size),
        scoring(),
    )


# === Report ===


def report(options):
    table = reports.evaluation_table(
        options,
        "accuracy of the trained classifiers by rounds, 0: exact attention",
        ("split", "reviews"),
        "rounds",
        lambda row: f"{row['accuracy']:.4f}",
    )
    reports.report(options, [table])
    reports.plot_curves(
        options,
        {"accuracy": "accuracy, training", "val_accuracy": "validation"},
        f"Movie reviews, {options.length:,} bytes",
    )
    pretraining = pretraining_of(options)
    if reports.stored_runs(pretraining):
        label = "accuracy of hidden bytes"
        if options.objective == "causal":
            label = "accuracy of the next byte"
        title = "Pretraining on movie reviews"
        reports.plot_curves(pretraining, {"val_accuracy": label}, title)


def main():
    parser = runs.make_parser(__doc__, __file__, ("lsh", "exact"), OPTIONS)
    parser.add_argument(
        "--rounds",
        type=runs.numbers,
        default=(4,),
        help="of hashing, in evaluations; 0 for exact attention",
    )
    parser.add_argument(
        "--pretraining", type=pathlib.Path, help="folder of its runs"
    )
    runs.run_all(runs.parse(parser, QUICK), run, report)


if __name__ == "__main__":
    main()
