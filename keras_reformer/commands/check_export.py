"""What `keras-reformer check-export` does."""

from keras_reformer.export.check.comparison import TOLERANCE, compare_loaders


def run(path):
    """Compares the loaders of a SavedModel, a line on stdout for each.

    Args:
        path: folder of a SavedModel, as `export_saved_model` returns it.

    Returns:
        bool. Whether all that could be compared agree.

    Raises:
        ValueError: if there is no SavedModel, or no request to compare.
    """
    agree = True
    for result in compare_loaders(path):
        print(describe(result), flush=True)
        agree = agree and not result.differs
    return agree


def describe(result):
    """A line about a `Result`."""
    if result.difference is None:
        return f"{result.loader:12} skipped: {result.reason}"
    if result.loader == "python":
        return f"{result.loader:12} the reference: {result.requests} requests"
    verdict = "equal" if not result.differs else "DIFFERS"
    return (
        f"{result.loader:12} {verdict}: {result.requests} requests, largest "
        f"difference {result.difference:.1e} (allowed {TOLERANCE:.0e})"
    )
