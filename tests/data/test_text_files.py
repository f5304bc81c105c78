import bz2
import gzip
import os
import stat
import tracemalloc

import numpy as np
import pytest

from keras_reformer.data import read_corpus, text_files

TEXT = "Grüße, 你好\n" * 5
PLAIN = TEXT.encode()
NOISE = np.random.default_rng(0).integers(0, 256, 3000).astype("u1").tobytes()


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_folder_says_what_it_left_out(tmp_path, capsys):
    files = {
        "a.txt": b"a",
        "b-utf16.txt": TEXT.encode("utf-16"),
        "c-stray.txt": b"one stray \0 in a text",
        "d.txt.gz": gzip.compress(b"packed"),
        "e-empty.txt": b"",
        "f.png": b"\x89PNG\0\0",
        "g.bz2": bz2.compress(b"packed"),
        "h-cut.gz": gzip.compress(NOISE)[:-30],
        "i-without-mark.txt": "text".encode("utf-16-le"),
        ".hidden": b"hidden",
    }
    for name, content in files.items():
        write(tmp_path / name, content)
    (tmp_path / "j-link.txt").symlink_to("a.txt")
    (tmp_path / "k-broken.txt").symlink_to("nowhere")
    (tmp_path / "l-folder").symlink_to(".")
    os.mkfifo(tmp_path / "m-pipe")
    parts = [b"a", PLAIN, files["c-stray.txt"], b"packed", b"a"]
    assert read_corpus(tmp_path).tobytes() == b"\n".join(parts)
    assert capsys.readouterr().out == (
        "corpus files: 5 read, 9 left out: binary 2, broken links 1, "
        "compressed 1, damaged 1, empty 1, hidden 1, links to folders 1, "
        "pipes, sockets or devices 1\n"
    )
    read_corpus(tmp_path, verbose=False)
    read_corpus(tmp_path / "a.txt")
    assert capsys.readouterr().out == ""


def test_a_glob_counts_too(tmp_path, capsys):
    (tmp_path / "folder.txt").mkdir()
    write(tmp_path / "a.txt", b"a")
    write(tmp_path / "b.txt", b"")
    assert read_corpus(tmp_path / "*.txt").tobytes() == b"a"
    out = capsys.readouterr().out
    assert out == "corpus files: 1 read, 1 left out: empty 1\n"


def test_nothing_left_says_why(tmp_path):
    write(tmp_path / "a.txt", b"")
    with pytest.raises(ValueError, match="0 read, 1 left out: empty 1"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_encodings_with_a_mark_become_utf8(tmp_path, encoding):
    mark = "\ufeff" if encoding.endswith("be") else ""
    content = (mark + TEXT).encode(encoding)
    path = write(tmp_path / "a.txt", content)
    assert read_corpus(path).tobytes() == PLAIN
    path = write(tmp_path / "b.txt", gzip.compress(content))
    assert read_corpus(path).tobytes() == PLAIN


def test_a_single_binary_file_is_taken_as_it_is(tmp_path):
    path = write(tmp_path / "a.bin", NOISE)
    assert b"\0" in NOISE
    assert read_corpus(path).tobytes() == NOISE


@pytest.mark.parametrize(
    "content, message",
    [
        (gzip.compress(NOISE, mtime=0)[:-4], "is damaged"),
        (gzip.compress(NOISE, mtime=0)[:9] + NOISE, "is damaged"),
        (b"\x1f\x8b" + NOISE, "is damaged"),
        (TEXT.encode("utf-16")[:-1], "is damaged"),
        (bz2.compress(NOISE), "compressed, and not by gzip"),
        (b"PK\3\4" + NOISE, "compressed, and not by gzip"),
        # The time in the header would give each worker another test id.
        (gzip.compress(b"", mtime=0), "It is empty"),
    ],
)
def test_a_single_file_without_text_is_refused(tmp_path, content, message):
    path = write(tmp_path / "a", content)
    with pytest.raises(ValueError, match=message):
        read_corpus(path)


def test_pipes_sockets_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    for path in [tmp_path / "pipe", tmp_path / "socket", "/dev/zero"]:
        with pytest.raises(ValueError, match="a pipe, a socket or"):
            read_corpus(path)


def test_nul_bytes_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_BLOCK", 8)
    for content in [PLAIN + b"\0" + PLAIN, b"1234567\xc3\xbc\0 and so on"]:
        write(tmp_path / "a.txt", content)
        assert read_corpus(tmp_path / "*.txt").tobytes() == content
    # Text first; what makes it binary comes later.
    for content in [PLAIN + NOISE, b"12345678\0" + b"\xff" * 20]:
        write(tmp_path / "a.txt", content)
        with pytest.raises(ValueError, match="binary 1"):
            read_corpus(tmp_path / "*.txt")


def test_a_large_binary_file_is_not_read_to_its_end(tmp_path):
    with open(tmp_path / "a.bin", "wb") as file:
        file.truncate(1 << 40)
    write(tmp_path / "b.txt", b"text")
    assert read_corpus(tmp_path).tobytes() == b"text"


def test_memory_holds_a_folder_once(tmp_path):
    size = 24 << 20
    for name in "ab":
        write(tmp_path / name, b"x" * (size // 2))
    tracemalloc.start()
    try:
        assert len(read_corpus(tmp_path)) == size + 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * size
