import zipfile

import numpy as np
import pytest

from keras_reformer.data import read_labelled_texts
from keras_reformer.data.labelled_texts import SPLITS, split_of

NAMES = [f"{label}/cv{i}.txt" for label in ("neg", "pos") for i in range(30)]


@pytest.fixture(params=["folder", "zip"])
def source(request, tmp_path):
    """The same texts in a folder and in a zip file."""
    files = {f"reviews/{name}": name.encode() for name in NAMES}
    files |= {"README.txt": b"no class", "reviews/notes/a.md": b"no text"}
    if request.param == "folder":
        for name, content in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "data"
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return tmp_path / "data.zip"


def test_a_folder_is_a_class(source):
    data = read_labelled_texts(source)
    # In the order of the paths.
    assert data.texts == sorted(name.encode() for name in NAMES)
    assert data.class_names == ("neg", "pos")
    assert data.labels.dtype == np.int32
    for text, label in zip(data.texts, data.labels, strict=True):
        assert text.startswith((b"neg", b"pos")[label])


def test_classes_in_an_order_of_their_own(source):
    data = read_labelled_texts(source, class_names=("pos", "neg"))
    assert len(data.texts) == 60
    for text, label in zip(data.texts, data.labels, strict=True):
        assert text.startswith((b"pos", b"neg")[label])
    (only,) = set(read_labelled_texts(source, class_names=("pos",)).labels)
    assert only == 0


def test_splits_share_nothing_and_miss_nothing(source):
    parts = [read_labelled_texts(source, split=split) for split in SPLITS]
    texts = [text for part in parts for text in part.texts]
    assert sorted(texts) == sorted(name.encode() for name in NAMES)
    for split, part in zip(SPLITS, parts, strict=True):
        assert {split_of(text.decode()) for text in part.texts} == {split}


def test_a_class_has_one_label_in_all_splits(tmp_path):
    """Also one that comes first and has no text in a split."""
    names = ["a/0.txt", *NAMES]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    classes = ("a", "neg", "pos")
    for given in (None, classes):
        for split in SPLITS:
            data = read_labelled_texts(tmp_path, split=split, class_names=given)
            assert data.class_names == classes
            for text, label in zip(data.texts, data.labels, strict=True):
                assert text.decode().split("/")[0] == classes[label]
            assert (0 in data.labels) == (split == split_of("a/0.txt"))
    other = next(split for split in SPLITS if split != split_of("a/0.txt"))
    with pytest.raises(ValueError, match=f"no labelled texts.*'{other}'"):
        read_labelled_texts(tmp_path, split=other, class_names=("a",))


def test_the_share_of_a_split_is_fixed_by_names():
    # What published figures were measured on must not change.
    assert split_of("neg/cv000_29416.txt") == "train"
    pinned = {"pos/0": "train", "pos/6": "validation", "pos/48": "test"}
    assert {name: split_of(name) for name in pinned} == pinned
    found = [split_of(f"pos/{index}") for index in range(5000)]
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(found.count(split) / 5000 - share) < 0.02


def test_what_is_not_there_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="no such split.*split='dev'"):
        read_labelled_texts(source, split="dev")
    with pytest.raises(ValueError, match=r"each class in \['mixed'\]"):
        read_labelled_texts(source, class_names=("neg", "mixed"))
    with pytest.raises(ValueError, match="no such folder.*missing"):
        read_labelled_texts(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no labelled texts.*empty"):
        read_labelled_texts(tmp_path / "empty")


def test_a_damaged_zip_file_is_refused(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pos/a.txt", b"text" * 100)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-30])
    with pytest.raises(ValueError, match="damaged.*BadZipFile"):
        read_labelled_texts(path)
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged.*CRC"):
        read_labelled_texts(path)
