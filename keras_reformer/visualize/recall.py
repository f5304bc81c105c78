"""How well attention looks up values, and what its queries attend to."""

import numpy as np

from keras_reformer.visualize.figures import new_figure

# Of an attention weight of one, in square points.
_DOT_AREA = 140
# From the back to the front: the lines of good models lie on each other.
_RECALL_STYLES = {
    "exact": {"label": "exact", "color": "#b5b5b5", "linewidth": 7},
    "local": {"label": "local only", "color": "#d62728", "linewidth": 2},
    "lsh": {"label": "LSH", "color": "#1f77b4", "linewidth": 2},
}


def plot_recall(metrics, weights, path, *, tokens, queries, values, reach):
    """Draws how well keys are looked up, and what their queries attend to.

    Args:
        metrics: dict, as `keras-reformer demo recall` writes it: `accuracy`
            by kind of attention, `by_distance` and `guessing`.
        weights: array of shape `(1, heads, len(queries), length)`: attention
            weights of an LSH layer for one sequence's queries.
        path: str. The PNG file to write.
        tokens: int array of shape `(length,)`. The sequence.
        queries: list of int. Positions of the queries.
        values: list of int. Position of the value that each asks for.
        reach: int. How many tokens back a local layer sees.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if shapes do not fit together.
    """
    weights = np.asarray(weights, np.float64)[0].mean(axis=0)
    expected = (len(queries), len(tokens))
    if weights.shape != expected or len(values) != len(queries):
        raise ValueError(
            "`weights` must have one row a query and one column a token, "
            f"{expected}, and `values` one position a query. Received: "
            f"weights.shape={weights.shape}, len(values)={len(values)}"
        )
    figure, axes = new_figure((13, 5.2), ncols=2, width_ratios=(1, 1.15))
    figure.set_layout_engine("constrained", wspace=0.08)
    figure.suptitle(
        f"Associative recall: {len(queries)} pairs in {len(tokens)} tokens",
        fontsize=14,
    )
    _draw_accuracy(axes[0], metrics, reach)
    _draw_lookups(axes[1], weights, tokens, queries, values)
    figure.savefig(path, dpi=130)


def _draw_accuracy(axis, metrics, reach):
    rows = metrics["by_distance"]
    centers = [(row["first"] + row["last"]) / 2 for row in rows]
    ends = {}
    for kind, style in _RECALL_STYLES.items():
        percent = [100 * row["accuracy"][kind] for row in rows]
        axis.plot(centers, percent, marker="o", solid_capstyle="round", **style)
        ends[kind] = percent[-1]
    # Of labels at one height the better model's stands above.
    better_last = sorted(ends, key=metrics["accuracy"].get)
    ends = {kind: ends[kind] for kind in better_last}
    for kind, height in _spread(ends, 7.0).items():
        axis.annotate(
            f"{_RECALL_STYLES[kind]['label']} "
            f"({100 * metrics['accuracy'][kind]:.1f} %)",
            (1.02, height),
            xycoords=("axes fraction", "data"),
            va="center",
            color=_text_color(kind),
        )
    _draw_guesses(axis, metrics["guessing"])
    axis.axvspan(0, reach, color="#f3f3f3", zorder=0)
    axis.annotate(
        f"a local layer sees {reach} back", (1, 104), color="grey", fontsize=8
    )
    axis.set_xlim(0, rows[-1]["last"])
    axis.set_ylim(-6, 108)
    axis.set_yticks(range(0, 101, 20), [f"{n} %" for n in range(0, 101, 20)])
    axis.set_xlabel("tokens from the query back to the value")
    axis.set_title("Queries answered with the right value", loc="left")


def _draw_guesses(axis, guessing):
    for name, chance in guessing.items():
        axis.axhline(100 * chance, color="grey", linestyle="--", linewidth=0.8)
        # Out of the way of a line that falls from one to the other.
        low = 100 * chance < 10
        axis.annotate(
            f"guessing {name}",
            (0.01 if low else 0.99, 100 * chance + (-1 if low else 1)),
            xycoords=("axes fraction", "data"),
            ha="left" if low else "right",
            va="top" if low else "bottom",
            color="grey",
            fontsize=8,
        )


def _text_color(kind):
    return "#666666" if kind == "exact" else _RECALL_STYLES[kind]["color"]


def _spread(heights, gap, lowest=1, highest=104):
    """Moves labels apart that would stand on each other."""
    names = sorted(heights, key=heights.get)
    placed = dict(heights)
    limit = highest
    for name in reversed(names):
        placed[name] = min(placed[name], limit)
        limit = placed[name] - gap
    limit = lowest
    for name in names:
        placed[name] = max(placed[name], limit)
        limit = placed[name] + gap
    return placed


def _draw_lookups(axis, weights, tokens, queries, values):
    color = _RECALL_STYLES["lsh"]["color"]
    ring = {"facecolor": "none", "edgecolor": "black", "zorder": 4}
    pairs_end = 2 * len(queries)
    axis.axvspan(-0.5, pairs_end - 0.5, color="#f3f3f3", zorder=0)
    for row, (query, value) in enumerate(zip(queries, values, strict=True)):
        axis.plot([0, query], [row, row], color="#dddddd", lw=1, zorder=1)
        axis.plot(query, row, "k|", markersize=11)
        seen = np.flatnonzero(weights[row] > 0.005)
        axis.scatter(
            seen,
            np.full(len(seen), row),
            s=_DOT_AREA * weights[row, seen],
            color=color,
            linewidth=0,
            zorder=3,
        )
        axis.scatter(value, row, s=1.5 * _DOT_AREA, **ring)
    axis.scatter([], [], s=0.8 * _DOT_AREA, color=color, label="weight (area)")
    axis.scatter([], [], s=1.5 * _DOT_AREA, label="the right value", **ring)
    axis.plot([], [], "k|", markersize=11, label="the query")
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False
    )
    _label_lookups(axis, weights, tokens, queries, values)


def _label_lookups(axis, weights, tokens, queries, values):
    rows = range(len(queries))
    axis.set_yticks(rows, [f"key {tokens[query]}" for query in queries])
    axis.set_ylim(len(queries) - 0.4, -0.9)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlim(-2.5, len(tokens))
    axis.set_xlabel("position in the sequence")
    axis.annotate(
        "pairs", (len(queries) - 0.5, -0.6), color="grey", ha="center", size=8
    )
    for row, value in zip(rows, values, strict=True):
        axis.annotate(
            f"{100 * weights[row, value]:.0f} % on value {tokens[value]}",
            (1.0, row),
            xycoords=("axes fraction", "data"),
            va="center",
            color=_RECALL_STYLES["lsh"]["color"],
        )
    axis.set_title(
        "What the queries of a fresh sequence attend to (LSH, mean of heads)",
        loc="left",
    )
