"""Training that is killed, and training by two processes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from keras_reformer.distribute import initialize
from keras_reformer.models import rendezvous
from tests.support import cluster

WORKER = Path(__file__).parents[1] / "support" / "engine_worker.py"


def start(folder, *arguments):
    command = [sys.executable, str(WORKER), str(folder), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def free_address():
    return f"127.0.0.1:{cluster.free_ports(1)[0]}"


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
    address = free_address()
    finish(*(start(tmp_path, "--process", index, address) for index in (0, 1)))
    first, second = weights(tmp_path, 0), weights(tmp_path, 1)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    # What one process with two devices makes of the same batches.
    finish(start(tmp_path / "one"))
    for a, b in zip(weights(tmp_path / "one"), first, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# === Who never comes ===


def together(address, come, expected=3):
    """What processes get who come to a first one's address, by index."""
    found = {}

    def run(index):
        try:
            rendezvous.meet_at(address, index, expected, timeout=1.5)
            found[index] = None
        except TimeoutError as error:
            found[index] = str(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in come]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_processes_meet_at_the_first_ones_address():
    assert together(free_address(), [0, 1, 2]) == dict.fromkeys(range(3))


def test_each_process_names_who_is_missing():
    address = free_address()
    for error in together(address, [0, 2]).values():
        assert "Expected each of 3 processes to run this program" in error
        assert "Missing: process 1. Received: timeout=1.5" in error
    [error] = together(address, [1]).values()
    assert f"Missing: process 0 at {address}." in error


def test_a_process_that_never_comes(monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "_FIRST_LINE", 0.1)
    with pytest.raises(TimeoutError, match="Missing: process 1"):
        initialize(free_address(), 2, 0, timeout=1)
    assert "process 0 has waited 0 s for process 1" in capsys.readouterr().err


def test_lines_while_waiting(monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "_FIRST_LINE", 0.05)
    monkeypatch.setattr(rendezvous, "_NEXT_LINE", 0.05)
    with rendezvous.lines_while_waiting("others"):
        time.sleep(0.3)
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 1
    assert said[0] == "this process has waited 0 s for others"
    with rendezvous.lines_while_waiting("others"):
        pass
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("here:1", 2, 2), "process_id=2"),
        (("here:1", 0, 0), "num_processes=0"),
        (("here:1", 2, -1), "process_id=-1"),
        ((None, None, None, 0.5), "timeout=0.5"),
    ],
)
def test_numbers_of_processes_are_checked(arguments, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        initialize(*arguments)
