"""The scripts are no package: they import their neighbours by name."""

import sys
import zipfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "learning"))


@pytest.fixture(autouse=True)
def figures_are_closed():
    """A script draws and ends; here one process draws for all of them."""
    yield
    if "matplotlib" in sys.modules:
        from matplotlib import pyplot

        pyplot.close("all")


@pytest.fixture
def archive(tmp_path):
    """A file of 200 reviews, as `reviews.py` reads them."""
    path = tmp_path / "reviews.zip"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("movie_reviews/README", "pos")
        for label in ("neg", "pos"):
            for index in range(100):
                name = f"movie_reviews/{label}/cv{index}.txt"
                written.writestr(name, f"{label} {index} " + "abc " * index)
    return path
