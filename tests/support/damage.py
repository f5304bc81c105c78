"""Files cut off or changed at several places, and what comes of reading them.

What a reader must do is the same for every kind of file: a `ValueError` that
names it, or what the whole file says.
"""

import numpy as np


def cuts(content):
    """The content without its end, as after a broken download."""
    for share in (0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99):
        yield content[: int(share * len(content))]
    yield content[:-1]


def flips(content, count=40, seed=0):
    """The content with one byte changed, more often near the start."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        end = len(content) if index % 2 else min(len(content), 1500)
        changed = bytearray(content)
        changed[rng.integers(end)] ^= rng.integers(1, 256)
        yield bytes(changed)


def check(path, read, damaged, name=None):
    """Reads a file in each of the damaged states and then the whole one.

    Args:
        path: of the file.
        read: function of no arguments.
        damaged: iterable of contents.
        name: str. What errors must name. Defaults to the path.

    Returns:
        What was read of those that could be.
    """
    content, answers = path.read_bytes(), []
    for state in damaged:
        path.write_bytes(state)
        try:
            answers.append(read())
        except ValueError as error:
            assert (name or str(path)) in str(error), error
    path.write_bytes(content)
    read()
    return answers
