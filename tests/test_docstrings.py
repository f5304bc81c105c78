"""The examples in docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import keras_reformer

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(
        keras_reformer.__path__, "keras_reformer."
    )
)
PUBLIC = [name for name in keras_reformer.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    names = {"keras": keras, "keras_reformer": keras_reformer, "np": np}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in finder.find(module, extraglobs=names):
        report = []
        runner.run(example, out=report.append)
        assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_examples(name):
    public = getattr(keras_reformer, name)
    docstring = inspect.getdoc(public)
    assert ">>> " in docstring
    assert inspect.ismodule(public) or "Args:" in docstring
