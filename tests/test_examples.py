"""Every example runs, for a moment."""

import pathlib
import runpy
import sys

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SHORT = {
    "classify_reviews.py": [
        *("--data", "reviews", "--steps", "1", "--length", "128"),
        *("--attention", "lsh", "exact"),
    ],
    "complete_images.py": ["--images", "digits", "--steps", "1", "--rows", "2"],
    "finetune_converted.py": ["--steps", "1", "--epochs", "1"],
    "functional_model.py": ["--steps", "2"],
    "longer_transformer.py": ["--steps", "1", "--length", "512"],
    "masked_language_model.py": [
        *("--data", "text", "--steps", "1", "--length", "64"),
    ],
    "reverse_strings.py": ["--smoke"],
    "shakespeare.py": ["--steps", "2", "--data", "python"],
    "time_series.py": ["--steps", "1", "--length", "672"],
}
# Of the others' means the README's code, which is as long, runs in every test.
CHEAP = {"masked_language_model.py"}


def cases():
    for path in sorted(EXAMPLES.glob("*.py")):
        marks = () if path.name in CHEAP else pytest.mark.slow
        yield pytest.param(path, marks=marks, id=path.name)


@pytest.fixture
def small_data(tmp_path):
    """A text, and reviews and images in the formats of published ones."""
    for label in ("neg", "pos"):
        folder = tmp_path / "reviews" / label
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"{number}.txt").write_text(f"{label} {number}. " * 20)
    (tmp_path / "text").write_text("The quick brown fox. " * 200)
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6), "uint8")
    header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
    (tmp_path / "digits").write_bytes(header + images.tobytes())


@pytest.mark.parametrize("path", list(cases()))
def test_example_runs(path, monkeypatch, tmp_path, small_data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *SHORT[path.name]])
    before = set(tmp_path.glob("*.png"))
    namespace = runpy.run_path(str(path), run_name="__main__")
    if "Figure" in namespace:
        (picture,) = set(tmp_path.glob("*.png")) - before
        assert picture.stat().st_size > 1000


def test_drawn_digits_are_images():
    example = runpy.run_path(str(EXAMPLES / "complete_images.py"))
    images = example["drawn_digits"](5, size=28, columns=2)
    assert images.shape == (5, 28, 28)
    assert images.dtype == np.uint8
    # White ink in the middle of a black square.
    for image in images:
        assert image[8:20, 8:20].max() > 200
        assert image[0].max() == 0
