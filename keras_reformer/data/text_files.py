"""The text in a file, as UTF-8 and decompressed, or why there is none."""

import codecs
import functools
import gzip
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
# zip, bzip2, xz, Zstandard and 7z.
_OTHER_COMPRESSION = re.compile(
    rb"PK\x03\x04|BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c"
)
# The mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class NoText(Exception):
    """A file without text.

    Args:
        reason: str. The kind of fault, to count files by.
        sentence: str. What is wrong with this file.
    """

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


def append_text(
    corpus: bytearray, path: Path, *, any_bytes: bool = False
) -> None:
    """Appends the text in a file.

    gzip files are decompressed; UTF-16 and UTF-32 with a byte order mark
    become UTF-8. Other bytes are appended as they are. A file with NUL bytes
    is binary, unless it is UTF-8 and at most a tenth of it is NUL.

    Args:
        corpus: bytearray. Unchanged if there is no text.
        path: The file.
        any_bytes: bool. Whether to append a binary file too.

    Raises:
        NoText: if the file is empty, binary, damaged, compressed otherwise,
            not a regular file, or cannot be read.
    """
    start = len(corpus)
    try:
        _check_regular(path)
        for block in _blocks(path):
            first = len(corpus) == start
            corpus += block
            # A large binary file is not read to its end.
            if first and not any_bytes:
                _check_text(corpus, start)
        if len(corpus) == start:
            raise NoText("empty", "It is empty")
        if not any_bytes:
            _check_text(corpus, start)
    except NoText:
        del corpus[start:]
        raise


def _check_regular(path: Path) -> None:
    # Before it is opened: a pipe would wait for a writer.
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = "broken links" if path.is_symlink() else "unreadable"
        raise NoText(reason, _unreadable(path, error)) from error
    if not stat.S_ISREG(mode):
        raise NoText(
            "pipes, sockets or devices",
            f"{path} is a pipe, a socket or a device, which cannot be read "
            "twice",
        )


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            is_gzip = file.peek(len(_GZIP)).startswith(_GZIP)
            yield from _decoded(gzip.open(file) if is_gzip else file, path)
    # `gzip.BadGzipFile` is an OSError without a number.
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeError) as error:
        raise NoText("damaged", f"{path} is damaged ({error})") from error
    except OSError as error:
        raise NoText("unreadable", _unreadable(path, error)) from error


def _decoded(file, path: Path) -> Iterator[bytes]:
    head = file.peek(16)
    if _OTHER_COMPRESSION.match(head):
        raise NoText(
            "compressed", f"{path} is compressed, and not by gzip: unpack it"
        )
    blocks = iter(functools.partial(file.read, _BLOCK), b"")
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            texts = codecs.iterdecode(blocks, encoding)
            yield from (text.encode("utf-8") for text in texts)
            return
    yield from blocks


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror})"


def _check_text(corpus: bytearray, start: int) -> None:
    nuls = corpus.count(b"\0", start)
    if not nuls:
        return
    few = 10 * nuls <= len(corpus) - start
    if not (few and _is_utf8(corpus, start)):
        raise NoText("binary", "It is a binary file")


def _is_utf8(corpus: bytearray, start: int) -> bool:
    # A character cut off at the end is no fault: more may come.
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for cut in range(start, len(corpus), _BLOCK):
            decoder.decode(corpus[cut : cut + _BLOCK])
    except UnicodeDecodeError:
        return False
    return True
