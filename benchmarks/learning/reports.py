"""Tables and pictures of the runs in a folder, whoever made them."""

import itertools
import json
import math

import runs
from runs import reporting


def stored_runs(options, name="curve.csv"):
    """By kind and seed, the rows of the folder's runs, the options' first."""
    found = {}
    for path in sorted(options.folder.glob(f"*/{name}")):
        kind, _, seed = path.parent.name.rpartition("-")
        found[kind, int(seed)] = runs.read_rows(path)
    order = {kind: number for number, kind in enumerate(options.kinds)}
    rank = lambda key: (order.get(key[0], len(order)), key)  # noqa: E731
    return {key: found[key] for key in sorted(found, key=rank)}


def first_above(rows, name, threshold):
    """The first step whose value exceeds the threshold, or a dash."""
    steps = [row["step"] for row in rows if row[name] > threshold]
    return steps[0] if steps else "-"


def report(options, tables):
    """Prints the runs' machines and the tables, and stores the latter."""
    machines = {
        json.loads(path.read_text())["machine"]
        for path in options.folder.glob("*/about.json")
    }
    for machine in sorted(machines):
        print(f"\n{machine}")
    reporting.report(tables, options.markdown)


# === Tables ===


def training_table(options, name="val_accuracy"):
    """When accuracy while training first exceeded two thresholds."""
    header = ["kind", "seed", "steps", "first > 0.9", "first > 0.99", "last"]
    rows = [
        [
            kind,
            seed,
            curve[-1]["step"],
            first_above(curve, name, 0.9),
            first_above(curve, name, 0.99),
            f"{curve[-1][name]:.4f}",
        ]
        for (kind, seed), curve in stored_runs(options).items()
    ]
    return "accuracy on fresh sequences while training", header, rows


def evaluation_table(options, title, keys, column, value):
    """Evaluations of the trained weights.

    Args:
        options: with `folder` and `kinds`.
        title: str.
        keys: names of what has a row each, beside kind and seed.
        column: name of what has a column each value.
        value: function of a stored row to a cell.
    """
    cells, columns = {}, set()
    for run, rows in stored_runs(options, "evaluations.csv").items():
        for row in rows:
            if all(name in row for name in (*keys, column)):
                key = (*run, *(row[name] for name in keys))
                cells.setdefault(key, {})[row[column]] = value(row)
                columns.add(row[column])
    columns = sorted(columns)
    header = ["kind", "seed", *keys, *(f"{column} {x}" for x in columns)]
    rows = [
        [*key, *(found.get(x, "") for x in columns)]
        for key, found in cells.items()
    ]
    return title, header, rows


# === Picture ===


def plot_curves(options, panels, title):
    """Values against steps, a panel each, a colour a kind, a line a seed.

    Args:
        options: with `folder`, `kinds` and `picture`.
        panels: dict of columns of the curve to the labels of their axes.
        title: str.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = stored_runs(options)
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(1 + 5.5 * len(panels), 4.2),
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, label) in zip(axes[0], panels.items(), strict=True):
        _plot_panel(axis, found, kinds, name)
        _mark_stages(axis, found)
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
    if found:
        axes[0][0].legend()
    figure.suptitle(title)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.picture, dpi=120)
    plt.close(figure)
    print(f"picture: {options.picture}")


def _plot_panel(axis, found, kinds, name):
    labelled = set()
    for (kind, _), rows in found.items():
        rows = [row for row in rows if isinstance(row.get(name), (int, float))]
        axis.plot(
            [row["step"] for row in rows],
            [row[name] if math.isfinite(row[name]) else None for row in rows],
            color=f"C{kinds.index(kind)}",
            label=None if kind in labelled else kind,
            alpha=0.8,
        )
        labelled.add(kind)


def _mark_stages(axis, found):
    """A line where one run's length changes: all have the same stages."""
    rows = max(found.values(), key=len, default=[])
    for row, after in itertools.pairwise(rows):
        if row.get("length") != after.get("length"):
            axis.axvline(row["step"], color="gray", linestyle=":")
