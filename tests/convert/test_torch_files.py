"""PyTorch's files, read without PyTorch.

`files/` holds one state dict in both formats, written by `torch.save` of
version 2.13 (`_use_new_zipfile_serialization` False for the legacy one).
"""

import json
import pathlib
import pickle
import shutil
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_reformer import convert
from keras_reformer.convert import torch_files
from keras_reformer.convert.torch_files import read_torch_file

FILES = pathlib.Path(__file__).parent / "files"
BASE = np.arange(12, dtype="float32").reshape(3, 4)
EXPECTED = {
    "plain": BASE,
    "transposed": BASE.T,
    "part": BASE[1:, 2:],
    "half": np.array([0.5, -2.0], "float16"),
    "long": np.array(7, "int64"),
    "empty": np.zeros((0, 3), "float32"),
    "parameter": np.ones(2, "float32"),
    "flags": np.array([True, False]),
}


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_state_dicts(name):
    found = read_torch_file(FILES / name)
    assert list(found) == list(EXPECTED)
    for key, expected in EXPECTED.items():
        assert found[key].dtype == expected.dtype
        np.testing.assert_array_equal(found[key], expected)


class Calls:
    """Asks its reader to run a command."""

    def __reduce__(self):
        return print, ("run",)


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content))
    return path


def write_plain(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("write", [write_zip, write_plain])
def test_nothing_in_a_pickle_is_run(write, tmp_path, capsys):
    path = write(tmp_path / "model.bin", {"weight": Calls()})
    with pytest.raises(ValueError, match="builtins.print"):
        read_torch_file(path)
    assert not capsys.readouterr().out


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        read_torch_file(write_plain(tmp_path / "model.bin", {"a": 1}))


@pytest.mark.parametrize(
    "layout",
    [
        (1, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 2), (-1, 3)),
        (0, (-2, 3), (1, 1)),
        (4, (), ()),
    ],
)
def test_a_tensor_does_not_reach_beyond_its_storage(layout):
    with pytest.raises(ValueError, match="beyond its storage"):
        torch_files._tensor(np.zeros(4), *layout)


# What `torch.save` pickles for `{"weight": two bfloat16 elements}`.
BFLOAT16 = (
    b"\x80\x02}X\x06\x00\x00\x00weightctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nBFloat16Storage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85"
    b"\x89ccollections\nOrderedDict\n)RtRs."
)


def test_bfloat16(tmp_path):
    values = np.array([1.0, -2.5], ml_dtypes.bfloat16)
    with zipfile.ZipFile(tmp_path / "model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", BFLOAT16)
        archive.writestr("archive/data/0", values.tobytes())
    found = read_torch_file(tmp_path / "model.bin")["weight"]
    np.testing.assert_array_equal(found, values)


def test_a_folder_with_a_bin_file(tmp_path):
    shutil.copy(FILES / "zip.bin", tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"left over: .*transposed \(4, 3\)"):
        convert.load_huggingface(tmp_path)
