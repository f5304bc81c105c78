"""Training that is killed, and training by two processes."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).parents[1] / "support" / "engine_worker.py"


def start(folder, *arguments):
    command = [sys.executable, str(WORKER), str(folder), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def weights(folder, index=0):
    with np.load(folder / f"weights-{index}.npz") as arrays:
        return [arrays[name] for name in arrays.files]


def finish(*processes, returncode=0):
    for process in processes:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == returncode, said[-2000:]


@pytest.mark.slow
def test_a_killed_training_resumes_as_if_undisturbed(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    finish(start(undisturbed))
    finish(start(killed, "--die-at", 5), returncode=9)
    assert not (killed / "weights-0.npz").exists()
    finish(start(killed))
    [_, *found], [_, *expected] = weights(killed), weights(undisturbed)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_two_processes_end_with_equal_weights(tmp_path):
    (tmp_path / "one").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    finish(*(start(tmp_path, "--process", index, address) for index in (0, 1)))
    first, second = weights(tmp_path, 0), weights(tmp_path, 1)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    # What one process with two devices makes of the same batches.
    finish(start(tmp_path / "one"))
    for a, b in zip(weights(tmp_path / "one"), first, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
