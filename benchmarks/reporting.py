"""Tables and pictures of records, the same for all benchmarks.

A table is a triple of title, header and rows. Pictures are figures of
matplotlib, which is imported when one is drawn.
"""

import measuring

# === Tables ===


def report(tables, markdown):
    """Prints titled tables, and stores them as Markdown if told where."""
    tables = list(tables)
    for title, header, rows in tables:
        print(f"\n{title}\n{table(header, rows)}", flush=True)
    if markdown:
        parts = [
            f"### {title}\n\n{markdown_table(header, rows)}\n"
            for title, header, rows in tables
        ]
        machine = measuring.describe_machine()
        markdown.write_text("\n".join([machine + "\n", *parts]))


def table(header, rows):
    """An aligned table as text: names to the left, numbers to the right."""
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def markdown_table(header, rows):
    """The same table in Markdown."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    lines = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def label(case, keys):
    """What a case is called: the values of `keys` that it has."""
    parts = []
    for key in keys:
        value = case.get(key)
        if isinstance(value, bool):
            parts.append(key if value else f"no {key}")
        elif isinstance(value, int):
            parts.append(f"{key} {value:,}")
        elif value is not None:
            parts.append(str(value))
    return ", ".join(parts)


def ratio(value, reference):
    """`value / reference` for a table; empty where one of them is missing."""
    if not reference or value is None:
        return ""
    return f"{value / reference:.2f}"


def rows(records, columns):
    """A header and rows: by their headings, formats of a record's values."""
    cells = [
        [form.format(**record) for form in columns.values()]
        for record in records
    ]
    return list(columns), cells


def contender_table(title, summaries, ours, tokens, columns):
    """A row for each contender: columns, and what it takes beside ours.

    Args:
        title: str.
        summaries: dict. Of each contender the medians of its records.
        ours: str. The contender that the others are divided by.
        tokens: int. How many a step has.
        columns: dict. By its heading a format of a summary's values, of `us`
            a token and of the `rate` of tokens.
    """
    reference = summaries.get(ours, {})
    records = [
        {
            **summary,
            "name": name,
            "us": summary["seconds"] / tokens * 1e6,
            "rate": tokens / summary["seconds"],
            "time": ratio(summary["seconds"], reference.get("seconds")),
            "memory": ratio(summary["growth"], reference.get("growth")),
        }
        for name, summary in summaries.items()
    ]
    ratios = {"time / ours": "{time}", "memory / ours": "{memory}"}
    return title, *rows(records, {"contender": "{name}"} | columns | ratios)


def base_table(records, label):
    """Every number of every case: ours, the base's and the ratio."""
    found = {}
    for record in records:
        revisions = found.setdefault(label(record), {"ours": [], "base": []})
        revisions[record["revision"]].append(record)
    rows = []
    for name, revisions in found.items():
        ours, base = map(measuring.summarize, revisions.values())
        for value in dict.fromkeys([*ours, *base]):
            pair = ours.get(value), base.get(value)
            cells = ["" if each is None else f"{each:.4g}" for each in pair]
            rows.append((name, value, *cells, ratio(*pair)))
    return "medians", ("case", "value", "ours", "base", "ours / base"), rows


# === Pictures ===


def make_panels(rows, columns, width=5, height=4):
    """A figure, and its panels by row and column."""
    from matplotlib.figure import Figure

    size = width * columns, height * rows
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def curves(records, keys, axis, value, scale=1):
    """By what `keys` say of records, points of `axis` and a median."""
    found = {}
    places = measuring.group(records, (*keys, axis))
    for (*name, x), medians in places.items():
        line = found.setdefault(", ".join(map(str, name)), [])
        line.append((x, scale * medians[value]))
    return found


def colors(names):
    """Styles of lines: a name has one colour in all panels."""
    return {name: {"color": f"C{i}"} for i, name in enumerate(names)}


def draw_lines(panel, lines, styles=None, logarithmic="", **labels):
    """Lines through points, by their names.

    Args:
        panel: an axes of matplotlib.
        lines: dict. By name, a list of points `(x, y)`.
        styles: dict. By name, what `panel.plot` takes.
        logarithmic: str. "x", "y" or "xy"; y else begins at zero.
        **labels: what `panel.set` takes.
    """
    for name, points in lines.items():
        style = {"marker": "o"} | (styles or {}).get(name, {})
        panel.plot(*zip(*points, strict=True), label=name, **style)
    panel.set(**labels)
    panel.grid(alpha=0.3)
    if "x" in logarithmic:
        panel.set_xscale("log", base=2)
    if "y" in logarithmic:
        panel.set_yscale("log")
    else:
        # Ends above the highest: a line that is nearly flat would else lie
        # on the upper edge.
        panel.set_ylim(0, 1.15 * panel.dataLim.y1)


def draw_bars(bars, xlabel, title, colors=None, form="%.0f"):
    """A figure with a horizontal bar for each value of a dict."""
    figure, panels = make_panels(1, 1, 7, 1 + 0.35 * len(bars))
    panel = panels[0, 0]
    drawn = panel.barh(list(bars), list(bars.values()), color=colors)
    panel.bar_label(drawn, fmt=form, padding=3, fontsize="small")
    panel.invert_yaxis()
    panel.margins(x=0.2)
    panel.set(xlabel=xlabel, title=title)
    panel.grid(axis="x", alpha=0.3)
    return figure
