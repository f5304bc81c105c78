import contextlib
import io
import os
import sys

import pytest

from keras_reformer.commands.console import printing_anything


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_terminal_cannot_show_is_replaced(encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with printing_anything():
            print("你 \udcff")
            print("你 \udcff", file=sys.stderr)
    err.flush()
    assert out.buffer.getvalue() == b"? ?\n"
    assert err.buffer.getvalue() == b"\\u4f60 \\udcff\n"
    assert (out.errors, err.errors) == ("strict", "strict")


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_other_streams(stream):
    with contextlib.redirect_stdout(stream), printing_anything():
        print("你 \udcff")
    assert stream is None or stream.getvalue() == "你 \udcff\n"


def test_a_pipe_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream, contextlib.redirect_stdout(stream):
        with pytest.raises(BrokenPipeError):
            with printing_anything():
                print("too late")
        # Here Python would complain again.
        stream.flush()
