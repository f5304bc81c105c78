import numpy as np
import pytest

from keras_reformer.export.check import comparison, runner
from keras_reformer.export.check.comparison import Result, distance

ONE = {"logits": np.ones((2, 3), "float32")}


@pytest.mark.parametrize(
    "received, expected",
    [
        (ONE, 0.0),
        ({"logits": ONE["logits"] + 0.5}, 0.5),
        ({"logits": np.full((2, 3), np.nan)}, np.nan),
        ({"logits": np.ones((2, 4))}, np.inf),
        ({"other": ONE["logits"]}, np.inf),
        ({}, np.inf),
    ],
)
def test_distance(received, expected):
    np.testing.assert_equal(distance(ONE, received), expected)


def test_distance_is_relative_to_large_answers():
    large = {"score": np.array([-1000.0, 3.0])}
    assert distance(large, {"score": np.array([-999.0, 3.0])}) == 1e-3


def test_what_differs():
    assert not Result("a", 1, 1e-6).differs
    assert not Result("a", reason="not there").differs
    assert Result("a", 1, 1e-4).differs
    assert Result("a", 1, float("nan")).differs


def test_loaders_are_compared(reference):
    names = [name for name, _ in reference.requests]
    served = ["serve", "serving_default", "serve_padded", "score"]
    assert names == [*served, "generate"]
    assert reference.compare("same", reference.ask) == Result("same", 5, 0.0)

    def other(name, inputs):
        ids = (inputs["token_ids"] + 1) % 11
        return reference.ask(name, {**inputs, "token_ids": ids})

    assert reference.compare("other", other).differs
    only = reference.compare("one", reference.ask, only_default=True)
    assert only == Result("one", 1, 0.0)


def test_what_is_missing_and_what_fails_is_told(reference, monkeypatch):
    monkeypatch.setattr(comparison, "Reference", lambda path: reference)
    monkeypatch.setattr(runner, "missing", lambda: "no C compiler")

    def fails(path, inputs):
        raise RuntimeError("long story\nunknown ops: A, B\nmore")

    def absent(path, inputs):
        import a_package_that_does_not_exist  # noqa: F401

    engines = {"fails": fails, "absent": absent}
    monkeypatch.setattr(comparison, "ENGINES", engines)
    results = list(comparison.compare_loaders(reference.path))
    assert [(r.loader, r.difference, r.reason) for r in results[1:]] == [
        ("c", None, "no C compiler"),
        ("grpc", None, "no C compiler"),
        ("fails", None, "RuntimeError: unknown ops: A, B"),
        ("absent", None, "a_package_that_does_not_exist is not installed"),
    ]
