"""Workers of a cluster on this machine, as processes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np

from tests.support import worker


def free_ports(count):
    """Ports that nobody listened at a moment ago."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def environment(ports, index):
    """The environment variables of one worker."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    task = {"type": "worker", "index": index}
    config = json.dumps({"cluster": cluster, "task": task})
    return {
        **os.environ,
        "TF_CONFIG": config,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


class Cluster:
    """Two processes that run `tests.support.worker`."""

    def __init__(self, folder, task, kill_at=None):
        self._folder = folder
        ports = free_ports(2)
        self._logs = [folder / f"log-{index}.txt" for index in range(2)]
        self._workers = [
            self._start(ports, index, task, kill_at if index == 1 else None)
            for index in range(2)
        ]

    def _start(self, ports, index, task, kill_at):
        command = [sys.executable, "-m", worker.__name__, self._folder, task]
        if kill_at is not None:
            command.append(str(kill_at))
        with open(self._logs[index], "wb") as log:
            return subprocess.Popen(
                command,
                env=environment(ports, index),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._workers:
            process.kill()
            process.wait()

    def wait(self, timeout=300):
        """Return codes and logs."""
        codes = [process.wait(timeout) for process in self._workers]
        return codes, [log.read_text() for log in self._logs]

    def results(self):
        """What each worker wrote."""
        codes, logs = self.wait()
        assert codes == [0, 0], logs
        return [
            dict(np.load(self._folder / f"worker-{index}.npz"))
            for index in range(2)
        ]
