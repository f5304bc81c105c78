"""Completes the lower halves of digits, pixel by pixel.

    python examples/complete_images.py [--images t10k-images-idx3-ubyte.gz]

A causal language model of pixels, with positions by row and column. Without
MNIST's file it learns digits that matplotlib draws in its own fonts.
"""

import argparse
import pathlib

import keras
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import keras_reformer
from keras_reformer import data

MNIST = pathlib.Path(__file__).parents[2] / (
    "shared/data/t10k-images-idx3-ubyte.gz"
)
FONTS = ("DejaVu Sans", "DejaVu Serif", "STIXGeneral")


def drawn_digits(count, size=28, columns=20, seed=0):
    """Digits in several fonts, sizes, weights and angles, cut from sheets."""
    rng = np.random.default_rng(seed)
    sheet, images = columns * size, []
    while len(images) < count:
        figure = Figure(figsize=(1, 1), dpi=sheet, facecolor="black")
        for place in range(columns * columns):
            row, column = np.divmod(place, columns)
            x, y = column + 0.5, row + 0.5
            figure.text(
                (x + rng.normal(scale=0.04)) / columns,
                (y + rng.normal(scale=0.04)) / columns,
                str(rng.integers(10)),
                color="white",
                ha="center",
                va="center",
                fontfamily=rng.choice(FONTS),
                fontweight=rng.choice(["normal", "bold"]),
                fontstyle=rng.choice(["normal", "italic"]),
                fontsize=rng.uniform(2.4, 3.0) * 20 / columns,
                rotation=rng.normal(scale=10),
            )
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., 0]
        cells = pixels.reshape(columns, size, columns, size).swapaxes(1, 2)
        images.extend(cells.reshape(-1, size, size))
    return np.stack(images[:count])


def save_grid(path, columns):
    """A picture with a column of images for each title."""
    rows = len(next(iter(columns.values())))
    figure = Figure(
        figsize=(1.1 * len(columns), rows + 0.4), layout="constrained"
    )
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, images) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title, fontsize=9)
        for axis, image in zip(column, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
    figure.savefig(path, dpi=130)


def fit(tokenizer, train, held_out, steps):
    """A trained language model of images that are tokens."""
    keras.utils.set_random_seed(0)
    model = keras_reformer.ReformerCausalLM(
        **tokenizer.model_arguments(),
        num_layers=4,
        num_heads=2,
        hidden_dim=64,
        intermediate_dim=128,
    )
    schedule = keras.optimizers.schedules.CosineDecay
    rate = schedule(0.0, steps, warmup_target=4e-3, warmup_steps=steps // 20)
    bits = keras_reformer.BitsPerByte("bits_per_pixel")
    optimizer = keras.optimizers.AdamW(rate, global_clipnorm=1.0)
    model.compile(optimizer, metrics=[bits], jit_compile=True)
    train = np.resize(train, (16 * steps, tokenizer.length))
    model.fit(train, batch_size=16, validation_data=(held_out,))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default=MNIST if MNIST.exists() else None)
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--picture", default="completed.png")
    options = parser.parse_args()
    given = options.images
    images = data.read_idx(given) if given else drawn_digits(8000)
    tokenizer = data.ImageTokenizer(images.shape[1:], options.levels)
    token_ids = tokenizer.tokenize(images)
    held_out = min(len(images) // 10, 200)
    train = np.random.default_rng(0).permutation(token_ids[:-held_out])
    model = fit(tokenizer, train, token_ids[-held_out:], options.steps)
    chosen, half = token_ids[-options.rows :], images[-options.rows :].copy()
    middle = images.shape[1] // 2
    half[:, middle:] = 96
    prompts = chosen[:, : 1 + middle * images[0, 0].size]
    columns = {"original": images[-options.rows :], "given": half}
    for seed in range(3):
        completed = model.generate(prompts, tokenizer.length, seed=seed)
        columns[f"completed {seed + 1}"] = tokenizer.detokenize(completed)
    save_grid(options.picture, columns)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
