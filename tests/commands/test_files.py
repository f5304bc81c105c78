import errno
import os

import pytest

from keras_reformer.commands.files import replacing, write_json, write_text


def test_a_file_is_replaced_and_the_one_before_kept(tmp_path):
    path, previous = tmp_path / "a.txt", tmp_path / "b.txt"
    for text in ("first", "second", "third"):
        with replacing(str(path), previous=str(previous)) as temporary:
            assert temporary == str(tmp_path / "tmp-a.txt")
            write_text(temporary, text)
    assert (path.read_text(), previous.read_text()) == ("third", "second")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json("a.json", [1])
    assert (tmp_path / "a.json").read_text() == "[\n  1\n]\n"


def test_no_room(tmp_path):
    """By a real device without room, as far as there is one."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(OSError, match="kept.*a.txt") as caught:
        with replacing(str(path)), open("/dev/full", "w") as file:
            file.write("after")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "before"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("full")])
def test_an_error_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(type(error)):
        with replacing(str(path)) as temporary:
            write_text(temporary, "half")
            raise error
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]
