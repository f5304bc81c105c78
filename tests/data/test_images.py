import gzip

import numpy as np
import pytest

from keras_reformer.data import image_tokens, read_idx

IMAGES = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
HEADER = b"\0\0\x08\x03" + np.array([2, 3, 5], ">u4").tobytes()


def write(path, content):
    path.write_bytes(content)
    return path


def test_images_and_labels(tmp_path):
    path = write(tmp_path / "images", HEADER + IMAGES.tobytes())
    np.testing.assert_array_equal(read_idx(path), IMAGES)
    packed = gzip.compress(HEADER + IMAGES.tobytes())
    path = write(tmp_path / "images.gz", packed)
    np.testing.assert_array_equal(read_idx(str(path)), IMAGES)
    labels = b"\0\0\x08\x01\0\0\0\x02\x07\x09"
    path = write(tmp_path / "labels", labels)
    np.testing.assert_array_equal(read_idx(path), [7, 9])


@pytest.mark.parametrize(
    "content, message",
    [
        (HEADER + IMAGES.tobytes()[:-1], "says 30 bytes.*there are 29"),
        (HEADER + IMAGES.tobytes() + b"x", "there are 31"),
        (HEADER[:9], "does not begin"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "does not begin"),
        (b"", "does not begin"),
        (b"some text", "does not begin"),
        (gzip.compress(HEADER, mtime=0)[:-4], "is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = write(tmp_path / "a", content)
    with pytest.raises(ValueError, match=f"{message}.*Received: path="):
        read_idx(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read.*IDX.*missing"):
        read_idx(tmp_path / "missing")


def test_pixels_are_tokens_row_by_row():
    tokens = image_tokens(IMAGES)
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, np.arange(30).reshape(2, 15))
    colours = IMAGES.reshape(2, 1, 5, 3)
    np.testing.assert_array_equal(image_tokens(colours), tokens)


@pytest.mark.parametrize(
    "images", [IMAGES[0], IMAGES.astype("int32"), IMAGES / 255]
)
def test_other_arrays_are_no_images(images):
    with pytest.raises(ValueError, match="images.dtype="):
        image_tokens(images)
