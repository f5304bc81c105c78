"""Tables and pictures of records, the same for all benchmarks.

A table is a triple of title, header and rows. Pictures are figures of
matplotlib, which is imported when one is drawn.
"""

import string

import measuring

# === Tables ===


def report(tables, markdown):
    """Prints titled tables, and stores them as Markdown if told where."""
    parts = [measuring.describe_machine() + "\n"]
    for title, header, rows in tables:
        print(f"\n{title}\n{table(header, rows)}", flush=True)
        parts.append(f"### {title}\n\n{markdown_table(header, rows)}\n")
    if markdown:
        markdown.write_text("\n".join(parts))


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


def fields(form):
    """The names in a format."""
    names = (name for _, name, *_ in string.Formatter().parse(form) if name)
    return [name.split("[")[0] for name in names]


def titled(records, form):
    """Titles, each with the records that agree in all that `form` names.

    `form` is a format of a record's values: "{mode}, {length:,} tokens".
    """
    for members in measuring.split(records, fields(form)).values():
        yield form.format(**members[0]), members


def rows(records, columns, reference=None):
    """A header and rows: by their headings, formats of a record's values.

    "{name/}" is the ratio to the reference's value; what is None is empty.
    Columns are a dict, or pairs where a heading repeats.
    """
    columns = columns.items() if isinstance(columns, dict) else columns
    cells = [
        [_cell(form, record, reference or {}) for _, form in columns]
        for record in records
    ]
    return [heading for heading, _ in columns], cells


def _cell(form, record, reference):
    names = fields(form)
    if names[-1].endswith("/"):
        name = names[-1][:-1]
        return ratio(record[name], reference.get(name))
    missing = any(record[name] is None for name in names)
    return "" if missing else form.format(**record)


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


def picture(rows, **size):
    """A figure of rows of panels: of each a dict of what `draw_lines` takes."""
    figure, panels = make_panels(len(rows), len(rows[0]), **size)
    for panel, drawn in zip(panels.flat, sum(rows, []), strict=True):
        draw_lines(panel, **drawn)
    return figure


def curves(records, form, x, y, scale=1):
    """Lines by what a format names, through the medians of `y` at each `x`."""
    return {
        name: [
            (each[x], scale * each[y])
            for each in measuring.medians(members, [x])
        ]
        for name, members in titled(records, form)
    }


def colors(names):
    """Styles of lines: a name has one colour in all panels."""
    return {name: {"color": f"C{i}"} for i, name in enumerate(names)}


def draw_lines(
    panel, lines, styles=None, logarithmic="", legend=None, **labels
):
    """Lines through points, by their names.

    Args:
        panel: an axes of matplotlib.
        lines: dict. By name, a list of points `(x, y)`.
        styles: dict. By name, what `panel.plot` takes.
        logarithmic: str. "x", "y" or "xy"; y else begins at zero.
        legend: dict. What `panel.legend` takes; no legend without one.
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
    if legend is not None:
        panel.legend(**legend)


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
