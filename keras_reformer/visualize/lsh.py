"""What LSH attention looks at."""

import numpy as np

from keras_reformer.visualize.figures import new_figure, row_color

_SNIPPET_LENGTH = 16
_SMALLEST_WEIGHT = 1e-4


def plot_lsh(statistics, path, *, rows, text=None, head=0, layer=None):
    """Draws the buckets and the attention of one LSH layer's head.

    Above, every position's bucket in every round, with the positions that
    share a bucket with one of `rows` in that row's colour. Below, the
    attention weights of `rows`, with the text around the strongest.

    Args:
        statistics: dict, as `LSHSelfAttention.attention_statistics` gives
            it: `buckets` of shape `(batch, heads, rounds, length)` and
            `weights` of shape `(batch, heads, len(rows), length)`. The first
            of the batch is drawn.
        path: str. The PNG file to write.
        rows: list of int. The positions whose weights are given.
        text: bytes. The text, one byte a position, to label rows with.
        head: int. The head to draw. Defaults to 0.
        layer: int. Number of the layer, for the title.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if shapes, rows and text do not fit together.
    """
    buckets = np.asarray(statistics["buckets"])[0, head]
    weights = np.asarray(statistics["weights"], np.float64)[0, head]
    _check_lsh(buckets, weights, rows, text)
    num_rounds = buckets.shape[0]
    figure, axes = new_figure(
        (12, 3 + 1.6 * num_rounds + 1.3 * len(rows)),
        nrows=num_rounds + len(rows),
        sharex=True,
        height_ratios=(1.6,) * num_rounds + (1.3,) * len(rows),
    )
    name = "LSH layer" if layer is None else f"LSH layer in block {layer + 1}"
    figure.suptitle(
        f"{name}, head {head + 1}: buckets of {buckets.shape[1]:,} positions, "
        f"and what {len(rows)} of them attend to"
    )
    for number, ids in enumerate(buckets):
        _draw_buckets(axes[number], ids, rows, number, num_rounds)
    for number, position in enumerate(rows):
        axis = axes[num_rounds + number]
        _draw_row(axis, weights[number], position, row_color(number), text)
    axes[-1].set_xlabel("position (byte)")
    figure.savefig(path, dpi=110)


def _check_lsh(buckets, weights, rows, text):
    length = buckets.shape[-1]
    expected = (len(rows), length)
    if weights.shape != expected:
        raise ValueError(
            "`weights` must have one row a position in `rows` and one column "
            f"a position in `buckets`, {expected}. Received: "
            f"weights.shape={weights.shape}"
        )
    if any(not 0 <= row < length for row in rows):
        raise ValueError(
            f"`rows` must be positions from 0 to {length - 1}. "
            f"Received: rows={list(rows)}"
        )
    if text is not None and len(text) != length:
        raise ValueError(
            f"`text` must have one byte a position, {length}. "
            f"Received: len(text)={len(text)}"
        )


def _draw_buckets(axis, ids, rows, number, num_rounds):
    positions = np.arange(len(ids))
    size = 160 / np.sqrt(len(ids))
    axis.scatter(positions, ids, s=size, color="#bbbbbb", linewidths=0)
    for index, row in enumerate(rows):
        same = (ids == ids[row]) & (positions <= row)
        axis.scatter(
            positions[same],
            ids[same],
            s=3 * size,
            color=row_color(index),
            linewidths=0,
        )
        axis.plot(row, ids[row], "v", color=row_color(index), markersize=7)
    axis.set_ylabel(f"bucket\n(round {number + 1} of {num_rounds})")
    axis.margins(x=0.01)


def _draw_row(axis, weights, position, color, text):
    seen = np.flatnonzero(weights > 0)
    shown = np.maximum(weights[seen], _SMALLEST_WEIGHT)
    axis.vlines(seen, _SMALLEST_WEIGHT, shown, color=color, linewidth=1)
    axis.plot(seen, shown, ".", color=color, markersize=3)
    axis.axvline(position, color=color, linestyle=":", linewidth=1)
    axis.set_yscale("log")
    axis.set_ylim(_SMALLEST_WEIGHT, 1.5)
    axis.set_ylabel("weight")
    label = f"position {position} attends to {len(seen)} positions"
    if text is not None:
        label += f"; the text up to it: {_snippet(text, position, 40)}"
        _label_strongest(axis, weights, seen, color, text)
    axis.set_title(label, loc="left", fontsize=9, color=color, parse_math=False)


def _label_strongest(axis, weights, seen, color, text, count=4):
    """Numbers the strongest weights, and lists their text at the side."""
    strongest = seen[np.argsort(weights[seen])[::-1][:count]]
    lines = ["strongest at the end of"]
    for number, index in enumerate(strongest, start=1):
        height = max(weights[index], _SMALLEST_WEIGHT)
        axis.annotate(
            str(number),
            (index, height),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
        snippet = _snippet(text, index, _SNIPPET_LENGTH)
        lines.append(f"{number} {weights[index]:.3f} {snippet}")
    axis.text(
        1.01,
        1.0,
        "\n".join(lines),
        transform=axis.transAxes,
        va="top",
        fontsize=8,
        color=color,
        family="monospace",
        parse_math=False,
    )


def _snippet(text, position, length):
    piece = bytes(text[max(0, position - length + 1) : position + 1])
    return repr(piece.decode("ascii", errors="replace"))
