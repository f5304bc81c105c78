"""Figures without a window system, and colors."""

_ROW_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


def new_figure(size, **subplots):
    """Makes a figure and a flat array of its axes, without upper frames."""
    # No `pyplot`: it would choose a window system and keep the figures.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib. Install it with "
            '`pip install "keras-reformer[plot]"`.'
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(squeeze=False, **subplots).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def row_color(number):
    """Returns the color of the row of that number, one of a few."""
    return _ROW_COLORS[number % len(_ROW_COLORS)]
