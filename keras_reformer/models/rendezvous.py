"""Processes wait for each other at their addresses, for a limited time."""

import socket
import sys
import threading
import time

# A line is written after the first, and then again after each of the second.
_FIRST_LINE, _NEXT_LINE = 10.0, 60.0
_RETRY = 0.2
_GREETING = "keras-reformer worker {}\n"


def meet(addresses, index, timeout):
    """Returns once every process has reached every other.

    Each listens at its own address and greets the others at theirs. It is
    done when it was greeted by all and all have answered, and then leaves its
    port to whoever wants it.

    Args:
        addresses: list of strings `"host:port"`, the same in all processes.
        index: int. Which of them is this process's.
        timeout: float. Seconds to wait.

    Raises:
        TimeoutError: if a process does not come in time. The message names
            those that are missing.
    """
    others = [i for i in range(len(addresses)) if i != index]
    listener = socket.create_server(("", _port(addresses[index])))
    seen = _Seen()
    thread = threading.Thread(target=_answer, args=(listener, seen))
    thread.daemon = True
    thread.start()
    try:
        _greet_all(addresses, index, others, seen, timeout)
    finally:
        seen.closed = True
        # Wakes the thread, which a close alone leaves in `accept`.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


class _Seen:
    """Who has greeted this process, and whom it has greeted."""

    def __init__(self):
        self.guests = set()
        self.hosts = set()
        self.closed = False

    def missing(self, others):
        return [i for i in others if not (i in self.guests and i in self.hosts)]


def _greet_all(addresses, index, others, seen, timeout):
    began = time.monotonic()
    next_line = _FIRST_LINE
    while missing := seen.missing(others):
        waited = time.monotonic() - began
        names = ", ".join(f"worker {i} at {addresses[i]}" for i in missing)
        if waited > timeout:
            raise TimeoutError(
                f"Not all workers came. Expected every worker of TF_CONFIG to "
                f"run this program, and its address to be reachable. Missing: "
                f"{names}. Received: timeout={timeout}"
            )
        if waited > next_line:
            next_line += _NEXT_LINE
            line = f"worker {index} has waited {waited:.0f} s for {names}"
            print(line, file=sys.stderr, flush=True)
        for other in missing:
            if other not in seen.hosts and _greet(addresses[other], index):
                seen.hosts.add(other)
        time.sleep(_RETRY)


def _greet(address, index):
    """Whether whoever listens at an address returns the greeting."""
    host = address.rpartition(":")[0].strip("[]")
    greeting = _GREETING.format(index).encode()
    try:
        with socket.create_connection((host, _port(address)), 1.0) as peer:
            peer.sendall(greeting)
            return peer.makefile("rb").readline(100) == greeting
    except OSError:
        return False


def _answer(listener, seen):
    """Returns greetings until the listener is closed."""
    while not seen.closed:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        try:
            with peer:
                peer.settimeout(1.0)
                greeting = peer.makefile("rb").readline(100)
                index = int(greeting.rsplit(b" ", 1)[-1])
                if greeting == _GREETING.format(index).encode():
                    peer.sendall(greeting)
                    seen.guests.add(index)
        # Of somebody else, or cut off.
        except (OSError, ValueError):
            continue


def _port(address):
    return int(address.rpartition(":")[2])
