"""What is printed, on any terminal and into any pipe."""

import contextlib
import io
import os
import sys


@contextlib.contextmanager
def printing_anything():
    """Replaces, in a `with` block, what stdout and stderr cannot encode.

    Raises:
        OSError: if what was printed last cannot be written, because nobody
            reads it any more, say.
    """
    with contextlib.ExitStack() as stack:
        _set_errors(stack, sys.stdout, "replace")
        _set_errors(stack, sys.stderr, "backslashreplace")
        try:
            yield
        finally:
            _flush(sys.stdout)


def _set_errors(stack, stream, errors):
    # Not of this class are streams that a program has put in their place.
    if isinstance(stream, io.TextIOWrapper):
        stack.callback(stream.reconfigure, errors=stream.errors)
        stream.reconfigure(errors=errors)


def _flush(stream):
    # Without a standard output Python has `None`.
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        # Python flushes again when it ends, and would complain once more.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise
