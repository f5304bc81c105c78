"""Compares loaders of SavedModels with TensorFlow's Python loader."""

import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_reformer.export import warmup
from keras_reformer.export.check import prediction_service, runner, signatures
from keras_reformer.export.check.engines import ENGINES
from keras_reformer.files import reading

TOLERANCE = 1e-5
_DEFAULT = "serving_default"
# Messages of converters are long.
_REASON_LENGTH = 200

Arrays = dict[str, np.ndarray]
Ask = Callable[[str, Arrays], Arrays]


class Result(NamedTuple):
    """The result of one loader.

    Attributes:
        loader: its name.
        requests: number of requests compared.
        difference: the largest difference, relative to the largest value of
            that output or to 1, whichever is larger; None if the loader
            could not run.
        reason: why it could not run.
    """

    loader: str
    requests: int = 0
    difference: float | None = None
    reason: str | None = None

    @property
    def differs(self) -> bool:
        # Also true for NaN.
        return self.difference is not None and not self.difference <= TOLERANCE


class Reference:
    """Requests, and the outputs of TensorFlow's Python loader.

    The requests are the export's warm-up requests, those of the default
    signature under both of its names.

    Args:
        path: str. The folder of a SavedModel.

    Raises:
        ValueError: if there is no SavedModel, it is damaged, or has no
            request to compare.
    """

    def __init__(self, path: str):
        self.path = path
        self.signatures = signatures.read_signatures(path)
        # Keeps the variables alive that the loaded functions read.
        with reading(path, "a SavedModel with a default signature"):
            self._loaded = tf.saved_model.load(path)
            default = self.signatures[_DEFAULT]
        self.requests = list(self._requests(default))
        if not self.requests:
            raise ValueError(
                "There is nothing to compare. Expected requests in "
                "`assets.extra`, as `export_saved_model` writes them. "
                f"Received: {path!r}"
            )
        self.answers = [self.ask(*request) for request in self.requests]

    def ask(self, name: str, inputs: Arrays) -> Arrays:
        """Runs a signature with TensorFlow's Python loader."""
        tensors = {key: tf.constant(x) for key, x in inputs.items()}
        answer = self._loaded.signatures[name](**tensors)
        return {key: x.numpy() for key, x in answer.items()}

    def compare(self, loader: str, ask: Ask, only_default=False) -> Result:
        """Runs the same requests with another loader.

        Args:
            loader: str. Its name.
            ask: function from a signature's name and inputs to outputs.
            only_default: bool. Whether to run the default signature only.
        """
        count, largest = 0, 0.0
        for request, expected in zip(self.requests, self.answers, strict=True):
            if only_default and request[0] != _DEFAULT:
                continue
            received = ask(*request)
            count += 1
            # Python's `max` may drop a NaN.
            largest = float(np.max([largest, distance(expected, received)]))
        return Result(loader, count, largest)

    def _requests(self, default) -> Iterator[tuple[str, Arrays]]:
        for name, inputs in warmup.read(self.path):
            yield name, inputs
            if set(inputs) == set(default.inputs) and name == "serve":
                yield _DEFAULT, inputs


def distance(expected: Arrays, received: Arrays) -> float:
    """The largest relative difference of outputs.

    Differences are divided by the largest expected value of that output, if
    it is above 1. Other names, shapes or strings give infinity.
    """
    if set(expected) != set(received):
        return float("inf")
    differences = [0.0]
    for name, x in expected.items():
        if x.shape != received[name].shape:
            return float("inf")
        if x.dtype == object:
            differences.append(0.0 if np.all(x == received[name]) else np.inf)
            continue
        scale = max(1.0, float(np.max(np.abs(x), initial=0)))
        difference = np.abs(x.astype("float64") - received[name])
        differences.append(float(np.max(difference, initial=0)) / scale)
    return float(np.max(differences))


def compare_loaders(path: str) -> Iterator[Result]:
    """Compares all loaders that are installed.

    Args:
        path: str. The folder of a SavedModel, as `export_saved_model`
            returns it.

    Yields:
        The `Result` of each loader.

    Raises:
        ValueError: if there is no SavedModel, or no request to compare.
    """
    reference = Reference(path)
    yield Result("python", len(reference.requests), 0.0, "the reference")
    yield from _compare_c(reference)
    for name, run in ENGINES.items():
        yield _compare_engine(reference, name, run)


def _compare_c(reference) -> Iterator[Result]:
    reason = runner.missing()
    if reason:
        yield Result("c", reason=reason)
        yield Result("grpc", reason=reason)
        return
    with tempfile.TemporaryDirectory() as folder:
        program = runner.build(folder)
        with runner.Runner(program, reference.path) as c:
            yield reference.compare("c", c.run)
            reason = prediction_service.missing()
            if reason:
                yield Result("grpc", reason=reason)
                return
            with (
                prediction_service.serving(c) as address,
                prediction_service.client(address) as client,
            ):
                yield reference.compare("grpc", client.run)


def _compare_engine(reference, name, run) -> Result:
    """The result of an engine, which may not support all operations."""
    try:
        return reference.compare(
            name,
            lambda _, inputs: run(reference.path, inputs),
            only_default=True,
        )
    except ImportError as error:
        return Result(name, reason=f"{error.name} is not installed")
    except Exception as error:
        return Result(name, reason=_reason(error))


def _reason(error) -> str:
    """The unsupported operations that a converter's message names."""
    lines = str(error).splitlines()
    named = [x for x in lines if "operations: " in x or "ops: " in x]
    text = named[0] if named else str(error)
    words = f"{type(error).__name__}: {text}".split()
    return " ".join(words)[:_REASON_LENGTH]
