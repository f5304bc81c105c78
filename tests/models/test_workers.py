"""Several processes train one model."""

import threading

import numpy as np
import pytest

from keras_reformer.models import multi_worker_strategy, rendezvous
from tests.support import cluster, worker


def addresses(count):
    return [f"127.0.0.1:{port}" for port in cluster.free_ports(count)]


def test_workers_meet():
    places, met = addresses(3), []

    def come(index):
        rendezvous.meet(places, index, timeout=20)
        met.append(index)

    threads = [threading.Thread(target=come, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1, 2]


def test_a_worker_that_never_comes(monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "_FIRST_LINE", 0.1)
    places = addresses(2)
    with pytest.raises(TimeoutError, match=f"Missing: worker 1 at {places[1]}"):
        rendezvous.meet(places, 0, timeout=0.5)
    assert f"for worker 1 at {places[1]}" in capsys.readouterr().err


def test_somebody_else_at_a_workers_address():
    """Another program's server, such as one of a run that was left behind."""
    places = addresses(2)
    port = int(places[1].rpartition(":")[2])
    with cluster.socket.create_server(("127.0.0.1", port)):
        with pytest.raises(TimeoutError, match="Missing: worker 1"):
            rendezvous.meet(places, 0, timeout=0.5)


def test_the_timeout_of_a_cluster(monkeypatch):
    ports = cluster.free_ports(2)
    config = cluster.environment(ports, 0)["TF_CONFIG"]
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(TimeoutError, match=f"127.0.0.1:{ports[1]}"):
        multi_worker_strategy(timeout=1)


def test_others_than_workers_are_refused(monkeypatch):
    config = cluster.environment([1, 2], 0)["TF_CONFIG"]
    monkeypatch.setenv("TF_CONFIG", config.replace('"index": 0', '"index": 2'))
    with pytest.raises(ValueError, match=r"Received: task=\('worker', 2\)"):
        multi_worker_strategy()
    with pytest.raises(ValueError, match="Received: timeout=0"):
        multi_worker_strategy(timeout=0)


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, atol=tolerance, rtol=tolerance, err_msg=name
        )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["causal", "classifier"])
def test_two_workers_train_as_one(task, tmp_path):
    with cluster.Cluster(tmp_path, task) as workers:
        first, second = workers.results()
    assert_same(first, second, 0)
    assert_same(first, worker.results(worker.make_model(task), task), 1e-5)


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path):
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    with cluster.Cluster(folders[0], "dropout") as workers:
        whole, _ = workers.results()
    with cluster.Cluster(folders[1], "dropout", kill_at=1) as workers:
        codes, logs = workers.wait()
        assert codes[1] == -9 and codes[0] != 0, logs
    with cluster.Cluster(folders[1], "dropout") as workers:
        first, second = workers.results()
    assert_same(first, second, 0)
    assert_same(first, whole, 1e-6)
