import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from keras_reformer.data import (
    evaluation_windows,
    map_corpus,
    split_by_position,
    training_windows,
)


def resident_mebibytes():
    """Memory that this process holds, pages of mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def test_bytes_and_token_ids(tmp_path):
    path = tmp_path / "corpus"
    path.write_bytes(b"some text")
    assert map_corpus(path).tobytes() == b"some text"
    assert type(map_corpus(path)) is np.ndarray
    ids = np.array([300, 2, 35615], np.uint16)
    ids[::-1].tofile(path)
    # These bytes would begin a gzip file.
    assert path.read_bytes().startswith(b"\x1f\x8b")
    np.testing.assert_array_equal(map_corpus(path, "uint16"), ids[::-1])
    with pytest.raises(ValueError, match="read-only"):
        map_corpus(path, "uint16")[0] = 1


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)
def test_a_corpus_larger_than_memory(tmp_path):
    path = tmp_path / "corpus"
    with open(path, "wb") as file:
        # A hole of the file system: no disk is used, and reading it would
        # take 64 GiB.
        file.truncate(64 << 30)
        file.seek(-4, 2)
        file.write(b"last")
    before = resident_mebibytes()
    train, _, test = split_by_position(map_corpus(path), 0.25, 0.25)
    batches = training_windows(train, 1000, 4, seed=0, num_steps=3)
    for inputs, _ in batches:
        assert set(inputs.numpy().ravel()) == {2}
    last = evaluation_windows(test[-101:], 10, 2)
    *_, (_, labels) = last
    end = (labels.numpy()[-1, -4:] - 2).astype(np.uint8).tobytes()
    assert end == b"last"
    assert resident_mebibytes() - before < 256


@pytest.mark.parametrize(
    "content, dtype, message",
    [
        (b"", "uint8", "has 0 bytes"),
        (b"abc", "uint16", "has 3 bytes.*multiple of 2"),
        (gzip.compress(b"text", mtime=0), "uint8", "by gzip.*unpack it"),
    ],
)
def test_other_files_are_refused(tmp_path, content, dtype, message):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{message}.*Received: path="):
        map_corpus(path, dtype)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read.*missing"):
        map_corpus(tmp_path / "missing")
    with pytest.raises(ValueError, match="a folder or a device"):
        map_corpus(tmp_path)
    with pytest.raises(ValueError, match="dtype='int64'"):
        map_corpus(tmp_path, "int64")
