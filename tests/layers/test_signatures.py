"""What `help()` says of the public layers."""

import inspect
import re

import pytest

from keras_reformer import layers
from keras_reformer.layers.short_convolution import ShortConvolution

LAYERS = [getattr(layers, name) for name in layers.__all__]


def documented(kind):
    """Names under `Args:` in a class's docstring."""
    text = inspect.getdoc(kind).partition("\nArgs:\n")[2].partition("\n\n")[0]
    return re.findall(r"^    \*{0,2}(\w+): ", text, re.MULTILINE)


@pytest.mark.parametrize(
    "kind", [*LAYERS, ShortConvolution], ids=lambda kind: kind.__name__
)
def test_arguments_are_documented(kind):
    # Keras's layers are made by `__new__`, of which nothing is said.
    parameters = [*inspect.signature(kind.__init__).parameters][1:]
    assert sorted(documented(kind)) == sorted(parameters)


def test_the_test_sees_names():
    assert documented(layers.Dropout) == [
        "rate",
        "shared_axes",
        "seed",
        "kwargs",
    ]
