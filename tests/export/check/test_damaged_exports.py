"""SavedModels cut off and changed."""

import shutil
from pathlib import Path

import keras
import pytest

from keras_reformer.cli import main
from keras_reformer.export import export_saved_model, warmup
from keras_reformer.export.check.comparison import Reference
from keras_reformer.export.check.signatures import read_signatures
from keras_reformer.export.metadata import read_metadata
from tests.support.damage import check, cuts, flips


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small export."""
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), keras.layers.Embedding(11, 3)]
    )
    return export_saved_model(model, str(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def path(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "export"))


READERS = {
    "saved_model.pb": read_signatures,
    "metadata.json": read_metadata,
    "assets.extra/tf_serving_warmup_requests": warmup.read,
    "variables/variables.index": Reference,
    "variables/variables.data-00000-of-00001": Reference,
}


@pytest.mark.parametrize("file", READERS)
def test_each_file(path, file):
    def read():
        return READERS[file](str(path))

    content = (path / file).read_bytes()
    # What a checkpoint of TensorFlow cannot read does not say which file.
    name = str(path) if READERS[file] is Reference else None
    damaged = [*cuts(content.rstrip()), *flips(content, 16)]
    if READERS[file] is Reference:
        damaged = damaged[::4]
    check(path / file, read, damaged, name)


def test_a_damaged_graph_in_tensorflows_loader(path):
    file = path / "saved_model.pb"
    damaged = flips(file.read_bytes(), 30)
    check(file, lambda: Reference(str(path)), damaged, str(path))


def test_the_command_says_so_in_one_line(path, capsys):
    file = path / "variables" / "variables.index"
    file.write_bytes(file.read_bytes()[:20])
    assert main(["check-export", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "damaged" in line
    assert str(path) in line
