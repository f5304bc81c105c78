"""Fine-tunes a published, causal checkpoint as a classifier.

    python examples/finetune_converted.py [--checkpoint FOLDER]

Every public Reformer is causal, and a classifier reads both sides of a token:
`config={"is_decoder": False}` takes the causality off. Without a folder it
first writes a checkpoint in the published format, a small language model of
Python's library. The task is to tell which package code is from.
"""

import argparse
import pathlib
import sysconfig

import keras
import numpy as np
from matplotlib.figure import Figure

import keras_reformer
from keras_reformer import convert, data

LENGTH, COUNT = 512, 64
PACKAGES = ("asyncio", "email", "multiprocessing", "unittest")
LIBRARY = pathlib.Path(sysconfig.get_paths()["stdlib"])


def write_checkpoint(folder, steps):
    """Trains a causal language model and saves it as published ones are."""
    corpus = data.split_by_position(data.read_corpus("python"))
    model = keras_reformer.ReformerCausalLM(
        vocabulary_size=data.ByteTokenizer.vocabulary_size,
        num_layers=2,
        num_heads=2,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=LENGTH,
        chunk_length=32,
        # The published rule, which the format implies.
        scope="chunk",
        wrap=True,
    )
    model.compile(
        keras.optimizers.Adam(4e-3), metrics=[keras_reformer.BitsPerByte()]
    )
    windows = data.training_windows(corpus.train, LENGTH, 16, seed=0)
    model.fit(windows, steps_per_epoch=steps, shuffle=False)
    try:
        keras_reformer.ReformerClassifier(
            backbone=model.backbone, num_classes=len(PACKAGES)
        )
    except ValueError as error:
        print(f"A causal backbone is refused:\n{error}")
    convert.save_huggingface(model, folder)


def read_packages():
    """Windows of packages' code and their numbers, to train and to test."""
    parts = {"train": ([], []), "validation": ([], [])}
    for label, package in enumerate(PACKAGES):
        code = data.read_corpus(LIBRARY / package)
        corpus = data.split_by_position(code, validation=0.2, test=0.0)
        for name, (rows, labels) in parts.items():
            code = getattr(corpus, name)
            # Some all over the code, the same in each run.
            starts = np.linspace(0, len(code) - LENGTH, COUNT).astype(int)
            rows.append(code[starts[:, None] + np.arange(LENGTH)] + np.int32(2))
            labels.append(np.full(COUNT, label))
    return [tuple(map(np.concatenate, part)) for part in parts.values()]


def fine_tune(backbone, epochs):
    """The history of a classifier on a backbone of pretrained weights."""
    keras.utils.set_random_seed(0)
    classifier = keras_reformer.ReformerClassifier(
        backbone=backbone, num_classes=len(PACKAGES)
    )
    classifier.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    train, held_out = read_packages()
    return classifier.fit(
        *train, batch_size=16, epochs=epochs, validation_data=held_out
    ).history


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="with config.json; bytes, plus 2")
    parser.add_argument("--steps", type=int, default=400, help="of writing one")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--picture", default="finetuned.png")
    options = parser.parse_args()
    folder = options.checkpoint or "checkpoint"
    if options.checkpoint is None:
        write_checkpoint(folder, options.steps)
    masked_lm = convert.load_huggingface(folder, config={"is_decoder": False})
    config = masked_lm.backbone.get_config()
    scratch = keras_reformer.ReformerBackbone.from_config(config)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    starts = {
        "from the checkpoint": masked_lm.backbone,
        "from scratch": scratch,
    }
    for name, backbone in starts.items():
        print(f"Training {name}")
        accuracy = fine_tune(backbone, options.epochs)["val_accuracy"]
        label = f"{name}, {accuracy[-1]:.1%}"
        axis.plot(range(1, len(accuracy) + 1), accuracy, "o-", label=label)
    axis.axhline(1 / len(PACKAGES), color="grey", ls="--", label="chance")
    axis.set(xlabel="epoch", ylabel="accuracy, held-out code")
    axis.legend(frameon=False)
    figure.savefig(options.picture, dpi=130)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
