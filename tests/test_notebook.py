"""The notebook runs from its first cell to its last."""

import os
import pathlib
import sys

import pytest

NOTEBOOK = pathlib.Path(__file__).parent.parent / "examples" / "colab.ipynb"
SMALL = """\
LENGTH = 64
BATCH_SIZE = 2
STEPS_PER_EPOCH = 2
EPOCHS = 2
NUM_LAYERS = 2
HIDDEN_DIM = 16
TEXT_LENGTH = 12
JIT_COMPILE = False
ENGINE = {engine!r}
"""


def small(engine):
    """The notebook with its settings replaced, as Colab's user would."""
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = (
        cell
        for cell in notebook.cells
        if "parameters" in cell.metadata.get("tags", ())
    )
    names = [line.split(" = ")[0] for line in settings.source.splitlines()]
    replaced = SMALL.format(engine=engine)
    assert names == [line.split(" = ")[0] for line in replaced.splitlines()]
    settings.source = replaced
    return notebook


@pytest.mark.parametrize(
    "engine",
    ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)],
)
def test_every_cell_runs(engine, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    if engine == "jax":
        pytest.importorskip("jax")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    notebook = small(engine)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    for name in ("training.png", "attention.png", "model.keras"):
        assert (tmp_path / name).stat().st_size > 1000
    assert (tmp_path / "exported.zip").exists()


def test_it_is_stored_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
