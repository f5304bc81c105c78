import gzip

import numpy as np
import pytest

from keras_reformer import ReformerCausalLM
from keras_reformer.data import ImageTokenizer, image_tokens, read_idx

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


def test_a_tokenizer_puts_a_start_token_in_front_and_takes_it_away():
    tokenizer = ImageTokenizer((3, 5), levels=16)
    images = np.linspace(0, 255, 30).astype("uint8").reshape(2, 3, 5)
    ids = tokenizer.tokenize(images)
    assert ids.dtype == np.int32
    assert ids.shape == (2, tokenizer.length) == (2, 16)
    assert list(ids[:, 0]) == 2 * [tokenizer.start_id] == [16, 16]
    np.testing.assert_array_equal(ids[:, 1:], image_tokens(images) // 16)
    again = tokenizer.detokenize(list(ids))
    assert again.dtype == np.uint8
    assert again.shape == images.shape
    assert {again.min(), again.max()} == {0, 255}
    assert np.abs(again.astype(int) - images).max() <= 15
    np.testing.assert_array_equal(tokenizer.tokenize(again), ids)


def test_all_levels_are_kept():
    tokenizer = ImageTokenizer((2, 2, 3))
    images = np.arange(252, dtype="uint8").reshape(-1, 2, 2, 3)
    ids = tokenizer.tokenize(images)
    np.testing.assert_array_equal(ids[:, 1:].ravel(), np.arange(252))
    np.testing.assert_array_equal(tokenizer.detokenize(ids), images)


def test_a_start_token_among_pixels_is_black():
    tokenizer = ImageTokenizer((1, 2), levels=4)
    pixels = tokenizer.detokenize([[4, 4, 3]])
    np.testing.assert_array_equal(pixels, [[[0, 255]]])


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 3)])
def test_a_causal_model_completes_images(shape):
    tokenizer = ImageTokenizer(shape, levels=4)
    arguments = tokenizer.model_arguments()
    assert arguments["axial_shape"] == [shape[0] + 1, *shape[1:]]
    model = ReformerCausalLM(
        num_layers=1,
        num_heads=1,
        hidden_dim=6,
        intermediate_dim=6,
        chunk_length=8,
        attention_layers="local",
        **arguments,
    )
    tables = model.backbone.position_embedding.tables
    assert len(tables) == len(shape)
    images = np.full((2, *shape), 200, "uint8")
    half = tokenizer.tokenize(images)[:, : 1 + shape[1]]
    found = model.generate(half, tokenizer.length, "greedy")
    completed = tokenizer.detokenize(found)
    assert completed.shape == images.shape
    np.testing.assert_array_equal(np.stack(found)[:, : half.shape[1]], half)


@pytest.mark.parametrize(
    "shape, levels, message",
    [
        ((28,), 16, r"Received: shape=\(28,\)"),
        ((28, 0), 16, r"Received: shape=\(28, 0\)"),
        ((28, 28), 1, "Received: levels=1"),
        ((28, 28), 257, "Received: levels=257"),
    ],
)
def test_no_tokenizer_of_no_images(shape, levels, message):
    with pytest.raises(ValueError, match=message):
        ImageTokenizer(shape, levels)


def test_images_of_another_size_are_refused():
    tokenizer = ImageTokenizer((3, 5, 3))
    with pytest.raises(
        ValueError,
        match=r"Expected images of shape \(count, 3, 5, 3\).*"
        r"Received: images.shape=\(2, 3, 5\)",
    ):
        tokenizer.tokenize(IMAGES)
    with pytest.raises(ValueError, match="images.dtype=int32"):
        ImageTokenizer((3, 5)).tokenize(IMAGES.astype("int32"))
    with pytest.raises(ValueError, match=r"Expected 46 .*lengths \[45, 46\]"):
        tokenizer.detokenize([[1] * 45, [1] * 46])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.detokenize([[257] * 46])
