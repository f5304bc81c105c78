"""Fills in hidden spans of Python's own standard library.

    python examples/masked_language_model.py [--data FOLDER] [--steps 1200]

A `ReformerMaskedLM` sees both sides of a span of hidden bytes. The picture has
held-out text with what the model puts in the place of spans.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure

import keras_reformer
from keras_reformer import data

HIDDEN = data.ByteTokenizer.vocabulary_size
COLORS = {None: "black", True: "tab:green", False: "tab:red"}


def make_model(length):
    """Two blocks over bytes and one more id, for what is hidden."""
    return keras_reformer.ReformerMaskedLM(
        vocabulary_size=HIDDEN + 1,
        num_layers=2,
        num_heads=2,
        hidden_dim=96,
        intermediate_dim=192,
        max_sequence_length=length,
        chunk_length=32,
        position_embedding="rotary",
    )


def fill(model, token_ids):
    """The ids with the likeliest bytes in the place of hidden ones."""
    logits = model.predict(token_ids, verbose=0)
    # A byte, rather than padding, the end of a text or a hidden byte.
    likeliest = logits[..., 2:HIDDEN].argmax(-1) + 2
    return np.where(token_ids == HIDDEN, likeliest, token_ids)


def save_picture(path, token_ids, labels, filled, columns=90, lines=24):
    """The text, filled-in bytes green where right and red where wrong."""
    lines = min(lines, -(-len(labels) // columns))
    figure = Figure(figsize=(0.08 * columns, 0.2 * (lines + 2)))
    for place in range(min(columns * lines, len(labels))):
        right = None
        if token_ids[place] == HIDDEN:
            right = bool(filled[place] == labels[place])
        byte = int(filled[place]) - 2
        shown = chr(byte) if 32 <= byte < 127 else {10: "¶"}.get(byte, "·")
        if byte == 32 and right is not None:
            shown = "␣"
        figure.text(
            0.02 + 0.96 * (place % columns) / columns,
            1 - (2.2 + place // columns) / (lines + 2),
            shown,
            family="monospace",
            fontsize=8,
            color=COLORS[right],
            weight="normal" if right is None else "bold",
            parse_math=False,
        )
    figure.suptitle("Filled in: green is right, red is wrong", fontsize=9)
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="python")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--picture", default="filled.png")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    corpus = data.split_by_position(data.read_corpus(options.data))
    batches = data.training_windows(corpus.train, options.length, 2, seed=0)
    held_out = data.evaluation_windows(
        corpus.validation, options.length, 2, max_windows=16
    )
    held_out = data.mask_spans(held_out, HIDDEN, seed=1)
    model = make_model(options.length)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, options.steps, warmup_target=4e-3, warmup_steps=options.steps // 20
    )
    model.compile(
        keras.optimizers.AdamW(rate, global_clipnorm=1.0),
        # Of hidden bytes alone: all others have weight zero.
        weighted_metrics=["accuracy"],
    )
    model.fit(
        data.mask_spans(batches, HIDDEN, seed=0),
        steps_per_epoch=options.steps,
        shuffle=False,
        validation_data=held_out,
    )
    token_ids, labels, _ = next(held_out.as_numpy_iterator())
    filled = fill(model, token_ids)
    save_picture(options.picture, token_ids[0], labels[0], filled[0])
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
