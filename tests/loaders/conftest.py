import pytest

from keras_reformer.loaders import runner


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The C program."""
    if runner.missing():
        pytest.skip(runner.missing())
    return runner.build(str(tmp_path_factory.mktemp("program")))
