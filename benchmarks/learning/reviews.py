"""Does LSH attention learn from real texts what exact attention learns?

    python benchmarks/learning/reviews.py --kinds lsh,exact --seeds 0,1,2
    python benchmarks/learning/reviews.py --objective none --folder FOLDER
    python benchmarks/learning/reviews.py --test

Sentiment of movie reviews (Pang and Lee's polarity data set 2.0: 2,000 of
them), byte by byte, from the first 4,096 bytes, as in Long Range Arena's Text
task. The model first learns the training reviews themselves, as a masked or a
causal language model (Amos et al. 2023, arXiv 2310.02980), then a classifier
on its weights, the mean of all states and a dense layer, learns the labels.
Embeddings of n-grams stand beside those of bytes (`ngrams.py`). `--kinds bag`
is what they do alone, without any layer between them and the mean.

A hash of each file's name says whether it is for training, validation or
test (80, 10 and 10 in 100). The test set is read with `--test` alone, once
options have been chosen by the validation set.

Pretraining has runs of its own, in `pretraining/` of the folder or where
`--pretraining` says, so that several settings may share one. `runs.py` says
how runs are kept and resumed.
"""

import argparse
import functools
import pathlib

import batches
import keras
import models
import ngrams
import numpy as np
import reports
import runs

import keras_reformer
from keras_reformer import data

SPLITS = ("train", "validation", "test")
VOCABULARY = batches.HIDDEN + 1
PRETRAINING = {
    "objective": ("masked", "masked, causal, or none for no pretraining"),
    "mask_rate": (0.15, "share of bytes that are hidden"),
    "pretrain_steps": (100, "of pretraining"),
    "pretrain_batch_size": (8, "reviews in a step of pretraining"),
    "pretrain_learning_rate": (1e-3, "peak in pretraining"),
}
NGRAMS = {
    "ngrams": ("3,4,5,6", "lengths of n-grams, empty for bytes alone"),
    "ngram_rows": (2**16, "rows of each length's table"),
    "ngram_dim": (32, "width of each length's table"),
    "ngram_dropout": (0.3, "of what comes out of the tables"),
}
OPTIONS = {
    "data": (runs.DATA / "movie_reviews.zip", "a file"),
    "length": (4096, "tokens of a review; what comes later is cut"),
    "steps": (300, "of training the classifier"),
    "batch_size": (8, "reviews in a step"),
    "learning_rate": (1e-3, runs.RATE_HELP),
    "head_dropout": (0.3, "before the classifier's dense layer"),
    "crop": (False, "train on a random part of long reviews, not the first"),
    "test": (False, "evaluate on the test set too"),
    **PRETRAINING,
    **NGRAMS,
    **models.OPTIONS,
    "chunk_length": (64, "tokens in a chunk of LSH attention"),
    "local_chunk_length": (32, "tokens in a chunk of local attention"),
}
QUICK = {
    "kinds": ("lsh",),
    "length": 256,
    "steps": 40,
    "pretrain_steps": 40,
    "evaluate_every": 20,
    "ngram_rows": 2**10,
    "width": 32,
}


# === Data ===


def read(path, split):
    """The reviews of one split; others' are not read."""
    found = data.read_labelled_texts(
        path, split=split, class_names=("neg", "pos")
    )
    return batches.Reviews(found.texts, found.labels)


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
    if options.objective != "none" and kind != "bag":
        first = pretraining_of(options)
        pretrained = pretrain(first, reviews, kind, seed)
        if pretrained is None:
            return
        for part, source in zip(
            model.pretrained, pretrained.pretrained, strict=True
        ):
            part.set_weights(source.get_weights())
        start = runs.Start(runs.run_folder(first, kind, seed), pretrained)
    runs.compile_model(model, options.steps, options, **scoring(options))
    stage = labelled_stage(options, reviews, seed)
    if runs.train(model, [stage], options, kind, seed, start):
        for split in SPLITS[1 : 3 if options.test else 2]:
            evaluate(model, options, kind, seed, split)


def make_classifier(options, kind, seed):
    inputs = ngrams.token_inputs(options.length)
    mask = inputs["padding_mask"]
    if kind == "bag":
        if not options.ngrams:
            raise ValueError(
                "A bag of n-grams needs n-grams. Received: ngrams=''"
            )
        backbone, found = None, make_ngrams(options, seed)
        hidden = found(inputs["token_ids"])
    else:
        backbone = make_backbone(options, kind, seed, causal=False)
        found, hidden = with_ngrams(backbone, backbone, options, inputs, seed)
    pooled = keras.layers.GlobalAveragePooling1D()(hidden, mask=mask)
    pooled = keras_reformer.Dropout(options.head_dropout, seed=seed)(pooled)
    logits = keras.layers.Dense(2, kernel_initializer="zeros")(pooled)
    logits = keras.layers.Rescaling(ngrams.RATE)(logits)
    return finish(keras.Model(inputs, logits), backbone, found)


def make_language_model(options, kind, seed):
    causal = options.objective == "causal"
    make = keras_reformer.ReformerMaskedLM
    if causal:
        make = keras_reformer.ReformerCausalLM
    backbone = make_backbone(options, kind, seed, causal)
    model = make(backbone=backbone, tie_embeddings=options.tie_embeddings)
    inputs = ngrams.token_inputs(options.length)
    found, logits = with_ngrams(model, backbone, options, inputs, seed)
    return finish(keras.Model(inputs, logits), backbone, found)


def make_backbone(options, kind, seed, causal):
    return models.backbone(
        kind, options, VOCABULARY, options.length, seed, causal=causal
    )


def with_ngrams(model, backbone, options, inputs, seed):
    """The layer of n-grams, or None, and what the model makes of texts."""
    if not options.ngrams:
        return None, model(inputs)
    found = make_ngrams(options, seed)
    token_embedding = backbone.token_embedding
    return found, ngrams.in_front(model, token_embedding, found, inputs)


def make_ngrams(options, seed):
    return ngrams.NgramEmbedding(
        [int(size) for size in options.ngrams.split(",")],
        options.ngram_rows,
        options.ngram_dim,
        options.width,
        dropout=options.ngram_dropout,
        seed=seed,
    )


def finish(model, backbone, found):
    """Names what a classifier takes over from pretraining."""
    model.backbone = backbone
    model.pretrained = [part for part in (backbone, found) if part]
    return model


def scoring(options):
    """How models of both kinds are compiled."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # On a CPU XLA adds up a table's gradient row by row, in a loop.
    return {
        "loss": loss,
        "weighted_metrics": ["accuracy"],
        "jit_compile": not options.ngrams,
    }


def pretraining_of(options):
    """The options of the pretraining, which those of the rest leave alone."""
    names = (
        "length",
        "kinds",
        "export",
        *PRETRAINING,
        *NGRAMS,
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
    model = make_language_model(options, kind, seed)
    steps = options.pretrain_steps
    runs.compile_model(model, steps, options, **scoring(options))
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
        scoring(options),
        rounds=[0] if kind == "bag" else None,
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
