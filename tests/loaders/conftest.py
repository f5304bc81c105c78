import pytest

from keras_reformer.export import export_saved_model
from keras_reformer.loaders import runner
from tests.export.tiny import ONE_BLOCK, causal_lm


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """An exported language model."""
    folder = str(tmp_path_factory.mktemp("exported") / "tiny")
    return export_saved_model(causal_lm(**ONE_BLOCK), folder)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The C program."""
    if runner.missing():
        pytest.skip(runner.missing())
    return runner.build(str(tmp_path_factory.mktemp("program")))
