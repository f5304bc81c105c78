import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from keras_reformer.data import read_corpus


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "b.txt", b"bee")
    write(tmp_path / "a" / "z.py", "zü".encode())
    write(tmp_path / "a" / "c" / "d.txt", b"dee")
    write(tmp_path / "empty.txt", b"")
    write(tmp_path / "picture.png", b"\x89PNG\0\0")
    write(tmp_path / ".hidden" / "x.txt", b"hidden")
    write(tmp_path / ".dot", b"hidden")
    return tmp_path


def test_file(folder):
    data = read_corpus(folder / "b.txt")
    assert data.dtype == np.uint8
    assert data.tobytes() == b"bee"
    assert read_corpus(folder / "picture.png").tobytes() == b"\x89PNG\0\0"


def test_folder_is_sorted_and_recursive_and_holds_only_text(folder):
    expected = b"dee\nz\xc3\xbc\nbee"
    assert read_corpus(str(folder)).tobytes() == expected


def test_glob(folder):
    assert read_corpus(f"{folder}/**/*.txt").tobytes() == b"dee\nbee"
    assert read_corpus(folder / "*.txt").tobytes() == b"bee"


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert read_corpus("~/b.txt").tobytes() == b"bee"


def test_names_with_brackets_are_files_first(tmp_path):
    write(tmp_path / "[a].txt", b"literal")
    assert read_corpus(tmp_path / "[a].txt").tobytes() == b"literal"


def test_python_sources():
    text = read_corpus("python").tobytes()
    library = Path(sysconfig.get_path("stdlib"))
    assert len(text) > 4_000_000
    assert text.startswith((library / "__future__.py").read_bytes())
    assert (library / "json" / "decoder.py").read_bytes() in text
    # Only an installed package, a test and this file would hold these.
    assert (
        b"class TestCase(unittest.TestCase):\n    def test_basics" not in text
    )
    assert b"keras.layers" not in text
    assert text == read_corpus("python").tobytes()


def test_python_sources_leave_out_tests_and_packages(tmp_path, monkeypatch):
    for name in ["b.py", "a/x.py", "a.py", "test/t.py", "a/tests/t.py"]:
        write(tmp_path / name, name.encode())
    for name in ["site-packages/p.py", "idlelib/idle_test/t.py", "a/data.txt"]:
        write(tmp_path / name, b"no")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert read_corpus("python").tobytes() == b"a/x.py\na.py\nb.py"


def test_nothing_there(tmp_path):
    missing = tmp_path / "missing.txt"
    with pytest.raises(ValueError, match="nothing there") as error:
        read_corpus(missing)
    assert f"Received: source={str(missing)!r}" in str(error.value)
    for source in [tmp_path / "*.txt", ""]:
        with pytest.raises(ValueError, match="No text could be read"):
            read_corpus(source)


def test_empty(tmp_path):
    write(tmp_path / "empty.txt", b"")
    with pytest.raises(ValueError, match="It is empty"):
        read_corpus(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="no text in it"):
        read_corpus(tmp_path)
    with pytest.raises(ValueError, match="no text in it"):
        read_corpus(tmp_path / "*.txt")


def test_folder_without_text(tmp_path):
    write(tmp_path / "picture.png", b"\x89PNG\0\0")
    with pytest.raises(ValueError, match="no text in it"):
        read_corpus(tmp_path)


def test_unreadable_file(folder, monkeypatch, capsys):
    # By a patch, because permissions do not bind a superuser.
    opened = Path.open

    def refuse(path, *args):
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match="cannot be read .Permission denied"):
        read_corpus(folder / "b.txt")
    assert read_corpus(folder).tobytes() == b"dee\nz\xc3\xbc"
    assert "empty 1, hidden 2, unreadable 1\n" in capsys.readouterr().out


def test_unreadable_place(folder, monkeypatch):
    def refuse(path, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ValueError, match="Permission denied"):
        read_corpus(folder / "b.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions_of_the_system(folder):
    (folder / "a").chmod(0)
    try:
        for source in [folder / "a", folder / "a" / "z.py"]:
            with pytest.raises(ValueError, match="Permission denied"):
                read_corpus(source)
        assert read_corpus(folder).tobytes() == b"bee"
    finally:
        (folder / "a").chmod(0o755)


def test_tfds_arguments_are_refused_elsewhere(folder):
    with pytest.raises(ValueError, match="split='train'"):
        read_corpus(folder, split="train")
