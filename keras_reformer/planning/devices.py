"""What machines have: memory, and how they lay arrays out in it."""

import os
from typing import NamedTuple

GIB = 2**30


class Device(NamedTuple):
    """A kind of device.

    Attributes:
        platform: `"cpu"`, `"gpu"` or `"tpu"`.
        memory: Bytes that a program can have.
        lanes: Numbers in a row of the memory's layout: the last axis of an
            array is padded to a multiple of them.
        on_chip: Bytes beside `memory` in which the compiler keeps arrays that
            fit; 0 where nobody has looked.
    """

    platform: str
    memory: int
    lanes: int = 1
    on_chip: int = 0


def _tpu(gib, on_chip=0):
    return Device("tpu", gib * GIB, lanes=128, on_chip=on_chip)


# Memory of one chip, and of one core where a chip has two of its own (v2, v3).
DEVICES = {
    "cpu": Device("cpu", 0),
    "t4": Device("gpu", 16 * GIB),
    "l4": Device("gpu", 24 * GIB),
    "a100": Device("gpu", 40 * GIB),
    "h100": Device("gpu", 80 * GIB),
    "h200": Device("gpu", 141 * GIB),
    "v2": _tpu(8),
    "v3": _tpu(16),
    "v4": _tpu(32),
    # Of 128 MiB on the chip, the most that a compiled step had arrays in.
    "v5e": _tpu(16, on_chip=112 * 2**20),
    "v5p": _tpu(95),
    "v6e": _tpu(32),
}


def find_device(name, memory=None):
    """A device by name, with another size of memory on request.

    Args:
        name: one of `DEVICES`.
        memory: float. GiB of memory, or None for what the device has; for
            `"cpu"`, what this machine has.

    Raises:
        ValueError: if there is no such device, or memory is not positive.
    """
    if name not in DEVICES:
        raise ValueError(
            f"There is no such device. Expected one of {', '.join(DEVICES)}. "
            f"Received: device={name!r}. For another one take the nearest "
            "and set `memory`."
        )
    if memory is not None and not memory > 0:
        raise ValueError(
            "`memory` is in GiB. Expected more than 0. Received: "
            f"memory={memory}"
        )
    device = DEVICES[name]
    if memory is not None:
        return device._replace(memory=int(memory * GIB))
    if not device.memory:
        return device._replace(memory=_memory_of_this_machine())
    return device


def _memory_of_this_machine():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
