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
import hashlib
import pathlib
import zipfile
from typing import NamedTuple

import keras
import models
import numpy as np
import reports
import runs

import keras_reformer
from keras_reformer.data import ByteTokenizer

SPLITS = ("train", "validation", "test")
# The first token, whose state the classifier reads.
FIRST = ByteTokenizer.end_id
HIDDEN = ByteTokenizer.vocabulary_size
VOCABULARY = HIDDEN + 1
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


class Reviews(NamedTuple):
    """Texts as bytes, and their labels, 1 for praise."""

    texts: list[bytes]
    labels: np.ndarray


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
    return Reviews(texts, np.array(labels, "int32"))


def token_rows(texts, length, rng=None):
    """Token ids of texts behind a first token, and the padding mask.

    Args:
        texts: list of bytes.
        length: int. Tokens of a row; longer texts are cut.
        rng: NumPy generator, for a random part of longer texts, or None for
            the first.

    Returns:
        dict of int32 `token_ids` and bool `padding_mask`, `(len(texts),
        length)`.
    """
    rows = np.zeros((len(texts), length), "int32")
    rows[:, 0] = FIRST
    for row, text in zip(rows, texts, strict=True):
        spare = max(len(text) - (length - 1), 0)
        start = 0 if rng is None else int(rng.integers(spare + 1))
        part = text[start : start + length - 1]
        row[1 : len(part) + 1] = ByteTokenizer().tokenize(part)
    return {"token_ids": rows, "padding_mask": rows != ByteTokenizer.padding_id}


def labelled_batch(reviews, chosen, length, rng=None):
    texts = [reviews.texts[index] for index in chosen]
    return token_rows(texts, length, rng), reviews.labels[chosen]


def language_batch(rng, texts, length, objective, mask_rate):
    """What a language model learns: inputs, labels and weights."""
    inputs = token_rows(texts, length, rng)
    tokens, valid = inputs["token_ids"], inputs["padding_mask"]
    if objective == "causal":
        labels = np.roll(tokens, -1, axis=1)
        weights = np.roll(valid, -1, axis=1)
        weights[:, -1] = False
    else:
        labels = tokens
        # Some byte of every text is hidden, or a batch might have none.
        weights = rng.random(tokens.shape) < mask_rate
        weights[:, 1] = True
        weights &= valid & (tokens != FIRST)
        inputs["token_ids"] = np.where(weights, HIDDEN, tokens)
    return inputs, labels, weights.astype("float32")


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
    model = make_classifier(options, kind, seed)
    if options.objective != "none":
        pretrained = pretrain(pretraining_of(options), reviews, kind, seed)
        if pretrained is None:
            return
        model.backbone.set_weights(pretrained)
    runs.compile_model(model, options.steps, options, **scoring())
    stage = labelled_stage(options, reviews, seed)
    if runs.train(model, [stage], options, kind, seed):
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
    names = ("length", "kinds", *PRETRAINING, *models.OPTIONS, *runs.OPTIMIZER)
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
    """The weights of a backbone that knows texts, None if it diverged."""
    causal = options.objective == "causal"
    make = keras_reformer.ReformerMaskedLM
    if causal:
        make = keras_reformer.ReformerCausalLM
    backbone = models.backbone(
        kind, options, VOCABULARY, options.length, seed, causal=causal
    )
    model = make(backbone=backbone)
    steps = options.pretrain_steps
    runs.compile_model(model, steps, options, metrics=["accuracy"])
    stage = language_stage(options, reviews, seed)
    done = runs.train(model, [stage], options, kind, seed)
    return backbone.get_weights() if done else None


def language_stage(options, reviews, seed):
    """The validation is on parts of the training texts, hidden anew."""
    batch_size = options.pretrain_batch_size

    def batch(stream, index, count):
        rng = runs.random(seed, stream, index)
        chosen = rng.choice(len(reviews.texts), count, replace=False)
        return language_batch(
            rng,
            [reviews.texts[index] for index in chosen],
            options.length,
            options.objective,
            options.mask_rate,
        )

    return runs.Stage(
        options.pretrain_steps,
        lambda index: batch(runs.TRAINING, index, batch_size),
        lambda: batch(runs.VALIDATION, 0, 8 * batch_size),
        batch_size,
    )


def labelled_stage(options, reviews, seed):
    count, batch_size = len(reviews.labels), options.batch_size

    def batch(index):
        # An epoch is a permutation of all; a batch lies in one epoch.
        epoch, place = divmod(index, count // batch_size)
        order = runs.random(seed, runs.ORDER, epoch).permutation(count)
        chosen = order[place * batch_size : (place + 1) * batch_size]
        rng = runs.random(seed, runs.TRAINING, index)
        return labelled_batch(
            reviews, chosen, options.length, rng if options.crop else None
        )

    return runs.Stage(
        options.steps,
        batch,
        lambda: split_batch(options, "validation"),
        batch_size,
    )


def split_batch(options, split):
    reviews = read(options.data, split)
    chosen = np.arange(len(reviews.labels))
    batch = labelled_batch(reviews, chosen, options.length)
    return whole_batches(batch, options.batch_size)


def evaluate(model, options, kind, seed, split):
    """Accuracy on a split by rounds of hashing."""
    batch = split_batch(options, split)
    for rounds in options.rounds if models.hashes(kind) else [0]:
        case = {
            "split": split,
            "rounds": rounds,
            "reviews": int(batch[2].sum()),
        }
        runs.evaluate(
            runs.run_folder(options, kind, seed),
            case,
            lambda: {
                "accuracy": models.evaluate(
                    model,
                    rounds,  # noqa: B023
                    batch,
                    options.batch_size,
                    (),
                    **scoring(),
                )["accuracy"]
            },
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
