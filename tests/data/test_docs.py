"""The Python of docs/data.md runs as it stands."""

import re
from pathlib import Path

import pytest

from keras_reformer import data

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_python_runs(tmp_path, monkeypatch):
    pytest.importorskip("sentencepiece")
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_bytes(b"some text. " * 100)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    inputs, labels, weights = next(iter(names["masked"]))
    assert inputs["token_ids"].shape == labels.shape == weights.shape
    assert names["windows"].element_spec[0].shape == (1, 2)


def test_it_names_every_function():
    missing = [
        name
        for name in data.__all__
        if name not in PAGE and not name.endswith(("per_byte", "entropy"))
    ]
    # What `read_labelled_texts` and `split_by_position` return.
    assert missing == ["LabelledTexts", "Splits"]
