"""Processes wait for each other at their addresses, for a limited time."""

import contextlib
import socket
import sys
import threading
import time

# A line is written after the first, and then again after each of the second.
_FIRST_LINE, _NEXT_LINE = 10.0, 60.0
_RETRY = 0.2
_GREETING = "keras-reformer worker {}\n"
_MISSING = "keras-reformer misses"


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
    guests, hosts = set(), set()

    def answer(guest, greeting):
        guests.add(guest)
        return greeting

    def missing():
        absent = [i for i in others if not (i in guests and i in hosts)]
        for i in absent:
            greeting = _GREETING.format(index)
            if i not in hosts and _greet(addresses[i], index) == greeting:
                hosts.add(i)
        return [f"worker {i} at {addresses[i]}" for i in absent]

    with _answering(addresses[index], answer):
        _wait(missing, f"worker {index}", timeout, "every worker of TF_CONFIG")


def meet_at(address, index, count, timeout):
    """Returns once every process has reached the first one.

    The first listens at its address and tells the others whom it misses. It
    leaves its port once all have heard that it misses nobody.

    Args:
        address: string `"host:port"` of the first process.
        index: int. Number of this process.
        count: int. Number of processes.
        timeout: float. Seconds to wait.

    Raises:
        TimeoutError: if a process does not come in time. The message names
            those that are missing.
    """
    others = range(1, count)
    guests, told, known = set(), set(), []

    def answer(guest, greeting):
        del greeting
        guests.add(guest)
        absent = [str(i) for i in others if i not in guests]
        if not absent:
            told.add(guest)
        return f"{' '.join([_MISSING, *absent])}\n"

    def missing_guests():
        absent = [i for i in others if i not in guests]
        absent = absent or [i for i in others if i not in told]
        return [f"process {i}" for i in absent]

    def missing_elsewhere():
        said = _greet(address, index)
        if said.startswith(_MISSING):
            known[:] = [f"process {i}" for i in said[len(_MISSING) :].split()]
            return known
        # The first may have given up a moment ago.
        return known or [f"process 0 at {address}"]

    wait = f"process {index}", timeout, f"each of {count} processes"
    if index:
        _wait(missing_elsewhere, *wait)
    else:
        with _answering(address, answer):
            _wait(missing_guests, *wait)


@contextlib.contextmanager
def lines_while_waiting(text):
    """A context that writes a line on stderr now and then while it lasts.

    Args:
        text: str. What is waited for, behind "has waited ... s for ".
    """
    over = threading.Event()

    def write():
        began, pause = time.monotonic(), _FIRST_LINE
        while not over.wait(pause):
            _write(f"this process has waited {{:.0f}} s for {text}", began)
            pause = _NEXT_LINE

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write(line, began):
    waited = time.monotonic() - began
    print(line.format(waited), file=sys.stderr, flush=True)


def _wait(missing, who, timeout, expected):
    """Returns once a function returns no more names of who is missing."""
    began = time.monotonic()
    next_line = _FIRST_LINE
    while names := ", ".join(missing()):
        waited = time.monotonic() - began
        if waited > timeout:
            raise TimeoutError(
                f"Not all workers came. Expected {expected} to run this "
                "program, and its address to be reachable. Missing: "
                f"{names}. Received: timeout={timeout}"
            )
        if waited > next_line:
            next_line += _NEXT_LINE
            _write(f"{who} has waited {{:.0f}} s for {names}", began)
        time.sleep(_RETRY)


def _greet(address, index):
    """The line that whoever listens at an address returns, if any."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        with socket.create_connection((host, _port(address)), 1.0) as peer:
            peer.sendall(_GREETING.format(index).encode())
            return peer.makefile("rb").readline(10000).decode(errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def _answering(address, answer):
    """A context in which greetings at an address get their answers."""
    listener = socket.create_server(("", _port(address)))
    closed = threading.Event()
    arguments = listener, answer, closed
    thread = threading.Thread(target=_serve, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        # Wakes the thread, which a close alone leaves in `accept`.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _serve(listener, answer, closed):
    """Answers greetings until the listener is closed."""
    while not closed.is_set():
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        try:
            with peer:
                peer.settimeout(1.0)
                greeting = peer.makefile("rb").readline(100).decode()
                index = int(greeting.rsplit(" ", 1)[-1])
                if greeting == _GREETING.format(index):
                    peer.sendall(answer(index, greeting).encode())
        # Of somebody else, or cut off.
        except (OSError, ValueError):
            continue


def _port(address):
    return int(address.rpartition(":")[2])
