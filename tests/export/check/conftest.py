import pytest

from keras_reformer.export.check import runner
from keras_reformer.export.check.comparison import Reference


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The C program."""
    if runner.missing():
        pytest.skip(runner.missing())
    return runner.build(str(tmp_path_factory.mktemp("program")))


@pytest.fixture(scope="session")
def reference(exported):
    """The exported model in TensorFlow's Python loader."""
    return Reference(exported)
