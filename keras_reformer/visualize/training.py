"""The training curve."""

import csv
import os

import numpy as np

from keras_reformer.visualize.figures import new_figure, row_color


def plot_training(history, path, references=None):
    """Draws bits per byte and learning rate against training steps.

    Args:
        history: The CSV log of `keras-reformer train` (a path), or its rows
            as dicts with `step`, `bits_per_byte`, `val_bits_per_byte` and
            `learning_rate`.
        path: str. The PNG file to write.
        references: dict of str to float. Bits per byte to draw as
            horizontal lines, such as `{"zlib": 2.1}`.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if the history has no rows.
    """
    rows = _read_rows(history)
    if not rows:
        raise ValueError("`history` must have at least one row. Received: none")
    figure, axes = new_figure(
        (8, 6), nrows=2, sharex=True, height_ratios=(4, 1)
    )
    _draw_curves(axes[0], rows)
    _draw_references(axes[0], references or {})
    _draw_learning_rate(axes[1], rows)
    axes[1].set_xlabel("training step")
    figure.savefig(path, dpi=130)


def _read_rows(history):
    if not isinstance(history, (str, os.PathLike)):
        return list(history)
    with open(history, newline="", encoding="utf-8") as file:
        return [
            {name: float(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _draw_curves(axis, rows):
    curves = {"bits_per_byte": "training", "val_bits_per_byte": "validation"}
    for number, (name, label) in enumerate(curves.items()):
        points = [
            (row["step"], row[name])
            for row in rows
            if row.get(name) is not None
        ]
        if points:
            axis.plot(
                *np.transpose(points),
                color=row_color(number),
                marker="o",
                markersize=3,
                label=f"{label} ({points[-1][1]:.2f})",
            )
    axis.set_ylabel("bits per byte")
    axis.set_title("Training and validation")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def _draw_references(axis, references):
    for name, value in references.items():
        axis.axhline(value, color="grey", linestyle="--", linewidth=0.8)
        axis.annotate(
            f"{name} {value:.2f}",
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            color="grey",
            fontsize=8,
        )


def _draw_learning_rate(axis, rows):
    points = [
        (row["step"], row["learning_rate"])
        for row in rows
        if row.get("learning_rate") is not None
    ]
    if points:
        axis.plot(*np.transpose(points), color="grey")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("learning rate")
    axis.grid(alpha=0.3)
