"""Several processes, each with devices of its own, as one."""

import time

from keras_reformer.distribute.jax_engine import import_jax
from keras_reformer.layers import checks
from keras_reformer.models.rendezvous import lines_while_waiting, meet_at


def initialize(
    coordinator_address=None,
    num_processes=None,
    process_id=None,
    timeout=300,
    **options,
):
    """`jax.distributed.initialize`, which says whom it waits for.

    Call it in each process before anything else of jax, so before a
    `JaxEngine` is made. Where a process never comes, jax waits without a word
    and then aborts. Here lines on stderr say what is waited for, the first
    after ten seconds. Where the first three arguments are given, they name
    the processes, and there is an error instead of the abort.

    Args:
        coordinator_address: string `"host:port"` of the first process, the
            same in all; or None where jax finds out, as on a TPU pod and
            under Slurm. Defaults to `None`.
        num_processes: int or None. Number of processes, likewise.
        process_id: int or None. Number of this process, likewise.
        timeout: int. Seconds to wait for all processes. Defaults to `300`.
        **options: further arguments of `jax.distributed.initialize`.

    Raises:
        ImportError: if there is no jax, or one older than 0.7.2.
        TimeoutError: if a process does not come in time. The message names
            those that are missing.
        ValueError: if an argument is out of its range.

    Example:

    >>> try:
    ...     keras_reformer.distribute.initialize("localhost:1234", 2, 2)
    ... except ValueError as error:
    ...     print(str(error)[-13:])
    process_id=2.
    """
    jax = import_jax()
    checks.positive_int("timeout", timeout)
    given = coordinator_address, process_id, num_processes
    began = time.monotonic()
    if None not in given:
        _check(process_id, num_processes)
        if num_processes > 1:
            meet_at(*given, timeout)
    left = max(1, round(timeout - (time.monotonic() - began)))
    with lines_while_waiting(_OTHERS.format(left)):
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=left,
            **options,
        )


_OTHERS = (
    "other processes. Start the same program on all hosts, and see that the "
    "first one's address can be reached from each. jax ends this process "
    "after {} s."
)


def _check(process_id, num_processes):
    checks.positive_int("num_processes", num_processes)
    if checks.count("process_id", process_id) >= num_processes:
        raise ValueError(
            "Processes are numbered from zero. Expected a process_id below "
            f"num_processes={num_processes}. Received: process_id={process_id}."
        )
