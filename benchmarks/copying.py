"""Copying by LSH attention alone: does cached decoding find what it needs?

The model is given 60 random symbols and a separator and has to write the
symbols again, greedily, from its cache. All its attention is LSH attention
whose chunks are much shorter than the way back, so a symbol is found by its
bucket or not at all. Prints how many of 100 fresh strings are exact.
"""

import argparse
import time

import keras
import numpy as np

import keras_reformer

SYMBOLS = 32
SEPARATOR = SYMBOLS
STRING = 60
LENGTH = 2 * STRING + 1
FRESH = 100


def make_strings(rng, count):
    """Strings, and each with the separator and itself behind."""
    strings = rng.integers(0, SYMBOLS, (count, STRING), dtype="int32")
    separators = np.full((count, 1), SEPARATOR, "int32")
    return strings, np.concatenate([strings, separators, strings], axis=1)


def make_model(options):
    return keras_reformer.ReformerCausalLM(
        vocabulary_size=SYMBOLS + 1,
        num_layers=options.layers,
        num_heads=4,
        hidden_dim=options.hidden_dim,
        intermediate_dim=2 * options.hidden_dim,
        max_sequence_length=LENGTH,
        attention_layers=("lsh",),
        # A symbol and its copy are in the same column of the grid.
        axial_shape=(LENGTH // STRING + 1, STRING),
        chunk_length=16,
        num_hashes=options.num_hashes,
        seed=options.seed,
    )


class UntilLearned(keras.callbacks.Callback):
    """Prints progress, and stops when validation is nearly free of errors."""

    def __init__(self):
        super().__init__()
        self.start = time.time()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.time() - self.start
        print(
            f"{seconds:5.0f} s, epoch {epoch + 1}: loss {logs['loss']:.4f}, "
            f"validation {logs['val_loss']:.5f}, accuracy of the copy "
            f"{logs['val_accuracy']:.5f}",
            flush=True,
        )
        self.model.stop_training = logs["val_accuracy"] > 0.99999


def train(model, options):
    rng = np.random.default_rng(options.seed)
    steps, batch = options.steps_per_epoch, options.batch_size
    total = steps * options.epochs
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total, warmup_target=options.learning_rate, warmup_steps=100
    )
    model.compile(
        keras.optimizers.Adam(rate), metrics=["accuracy"], jit_compile=True
    )
    weights = np.zeros(LENGTH - 1, "float32")
    weights[STRING:] = 1.0

    def batches(count):
        _, texts = make_strings(rng, count)
        weight = np.broadcast_to(weights, (count, LENGTH - 1))
        return texts[:, :-1], texts[:, 1:], weight

    class Fresh(keras.utils.PyDataset):
        def __len__(self):
            return steps

        def __getitem__(self, index):
            return batches(batch)

    model.fit(
        Fresh(),
        epochs=options.epochs,
        validation_data=batches(512),
        validation_batch_size=batch,
        callbacks=[UntilLearned()],
        verbose=0,
    )


def count_exact(model, seed):
    """How many fresh strings generation copies without an error."""
    strings, texts = make_strings(np.random.default_rng(seed), FRESH)
    prompts = texts[:, : STRING + 1]
    found = np.stack(model.generate(prompts, LENGTH, sampler="greedy"))
    return int((found[:, STRING + 1 :] == strings).all(axis=1).sum())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, default in {
        "layers": 1,
        "hidden_dim": 64,
        "num_hashes": 4,
        "batch_size": 32,
        "steps_per_epoch": 50,
        "epochs": 60,
        "learning_rate": 5e-3,
        "seed": 0,
    }.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    model = make_model(options)
    train(model, options)
    exact = count_exact(model, options.seed + 1)
    print(f"exact copies: {exact} of {FRESH}")


if __name__ == "__main__":
    main()
