"""Data sets of tensorflow-datasets as token ids.

Each is downloaded and prepared when it is first asked for. Examples come in
the order of the files: shuffle them with `dataset.shuffle(n, seed=...)`.
"""

import importlib
import os

import numpy as np
import tensorflow as tf

from keras_reformer.data.byte_tokenizer import END_ID
from keras_reformer.data.document_batches import token_ids
from keras_reformer.data.tfds_examples import (
    import_tfds,
    prepared_builder,
    read_split,
)

# What wiki40b writes for the structure of an article.
_WIKI_MARKS = "_START_(ARTICLE|SECTION|PARAGRAPH)_\n"


def load_imdb_reviews(
    split: str = "train",
    *,
    tokenizer=None,
    data_dir: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """Movie reviews and whether they praise, by `imdb_reviews`.

    Long Range Arena's Text task has these, byte by byte.

    Args:
        split: `"train"`, `"test"`, or a slice such as `"train[:10%]"`.
        tokenizer: as of `documents`. Defaults to `ByteTokenizer()`.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.

    Returns:
        dataset: Pairs of int32 token ids `(number of tokens,)` and an int64
            label, 1 for praise: for `pad_documents` or `bucket_by_length`.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if there is no such split, the data set cannot be
            downloaded, or its folder is damaged.

    Example:
    ```python
    reviews = keras_reformer.data.load_imdb_reviews("train")
    dataset = keras_reformer.data.pad_documents(
        reviews.shuffle(25_000, seed=0), length=4096, batch_size=8
    )
    ```
    """
    examples = _examples("imdb_reviews", split, data_dir)
    return examples.map(
        lambda example: (
            token_ids(example["text"], tokenizer),
            example["label"],
        )
    )


def load_wmt14_translate(
    split: str = "train",
    *,
    source: str = "en",
    target: str = "de",
    tokenizer=None,
    data_dir: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """Sentences and their translations, by `wmt14_translate`.

    Args:
        split: `"train"`, `"validation"`, `"test"`, or a slice.
        source: str. Language of the encoder: `"en"`, or `"cs"`, `"de"`,
            `"fr"`, `"hi"`, `"ru"`. Defaults to `"en"`.
        target: str. Language of the decoder. One of the two is `"en"`.
            Defaults to `"de"`.
        tokenizer: as of `documents`. Defaults to `ByteTokenizer()`. Its
            `end_id` ends both texts and begins the decoder's.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.

    Returns:
        dataset: dicts of int32 `encoder_token_ids` and `decoder_token_ids`,
            `(number of tokens,)`: for `bucket_by_length`. A decoder's labels
            are its ids shifted by one.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if neither or both languages are English, there is no
            such split, the data set cannot be downloaded, or its folder is
            damaged.
    """
    languages = {source, target}
    if len(languages) != 2 or "en" not in languages:
        raise ValueError(
            "Expected English and one other language. Received: "
            f"source={source!r}, target={target!r}"
        )
    (other,) = languages - {"en"}
    end = [getattr(tokenizer, "end_id", END_ID)]

    def ids(example):
        encoder = token_ids(example[source], tokenizer)
        decoder = token_ids(example[target], tokenizer)
        return {
            "encoder_token_ids": tf.concat([encoder, end], 0),
            "decoder_token_ids": tf.concat([end, decoder, end], 0),
        }

    return _examples(f"wmt14_translate/{other}-en", split, data_dir).map(ids)


def load_downsampled_imagenet(
    split: str = "train",
    *,
    size: int = 64,
    data_dir: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """Small photographs as pixels, by `downsampled_imagenet`.

    The images on which the Reformer paper generates pixels: a value of a
    pixel is a token, `(64, 64, 3)` the axes of positions. `image_tokens` says
    in which order.

    Args:
        split: `"train"`, `"validation"`, or a slice.
        size: `64` or `32`. Pixels of a side. Defaults to `64`.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.

    Returns:
        dataset: int32 token ids `(3 * size * size,)`, from 0 to 255.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if there is no such size or split, the data set cannot be
            downloaded, or its folder is damaged.
        tf.errors.InvalidArgumentError: when an image of another size is read.
    """
    if size not in (32, 64):
        raise ValueError(f"Expected 32 or 64. Received: size={size!r}")
    name = f"downsampled_imagenet/{size}x{size}"

    def ids(example):
        image = tf.ensure_shape(example["image"], (size, size, 3))
        return tf.reshape(tf.cast(image, tf.int32), (3 * size * size,))

    return _examples(name, split, data_dir).map(ids)


def load_pg19(
    split: str = "train",
    *,
    tokenizer=None,
    data_dir: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """Whole books of Project Gutenberg from before 1919, by `pg19`.

    Args:
        split: `"train"`, `"validation"`, `"test"`, or a slice.
        tokenizer: as of `documents`. Defaults to `ByteTokenizer()`.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.

    Returns:
        dataset: int32 token ids `(number of tokens,)`: for `pad_documents`,
            with a `crop_seed` for random parts of books.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if there is no such split, the data set cannot be
            downloaded, or its folder is damaged.
    """
    examples = _examples("pg19", split, data_dir)
    return examples.map(lambda book: token_ids(book["book_text"], tokenizer))


def load_wiki40b(
    split: str = "train",
    *,
    language: str = "en",
    tokenizer=None,
    data_dir: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """Articles of Wikipedia in 40 languages, by `wiki40b`.

    Titles and paragraphs have lines of their own, without that data set's
    marks.

    Args:
        split: `"train"`, `"validation"`, `"test"`, or a slice.
        language: str. Such as `"en"` or `"zh-cn"`. Defaults to `"en"`.
        tokenizer: as of `documents`. Defaults to `ByteTokenizer()`.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.

    Returns:
        dataset: int32 token ids `(number of tokens,)`.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if there is no such language or split, the data set cannot
            be downloaded, or its folder is damaged.
    """

    def ids(article):
        text = tf.strings.regex_replace(article["text"], _WIKI_MARKS, "")
        text = tf.strings.regex_replace(text, "_NEWLINE_", "\n")
        return token_ids(tf.strings.strip(text), tokenizer)

    return _examples(f"wiki40b/{language}", split, data_dir).map(ids)


def load_enwik8(
    split: str = "train",
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
) -> np.ndarray:
    """enwik8's bytes: the first 90 million, or one of the next two 5 million.

    The builder is this package's own, in the layout of tensorflow-datasets.
    `tfds:enwik8/blocks_65536` has the same bytes in examples of 65,536.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.
        manual_dir: Folder that has `enwik8` or `enwik8.zip`, which are then
            not downloaded.

    Returns:
        data: Read-only uint8 array of shape `(number of bytes,)`: for
            `training_windows` and `evaluation_windows`.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if there is no such split, no such file in `manual_dir`,
            the file has another size, it cannot be downloaded, or the
            prepared folder is damaged.

    Example:
    ```python
    train = keras_reformer.data.load_enwik8("train", manual_dir="downloads")
    dataset = keras_reformer.data.training_windows(train, 65536, 1, seed=0)
    ```
    """
    import_tfds()
    module = importlib.import_module(
        "keras_reformer.data.datasets.enwik8.enwik8_dataset_builder"
    )
    if manual_dir is not None:
        module.find_file(manual_dir)
    builder = prepared_builder("enwik8/splits", data_dir, manual_dir)
    examples = read_split(builder, split, "enwik8")
    (text,) = (example["text"] for example in examples.as_numpy_iterator())
    return np.frombuffer(text, np.uint8)


def load_duplication(
    split: str = "train",
    *,
    length: int = 1024,
    data_dir: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """The duplication task, `0w0w`; `duplication_batch` draws it without end.

    The builder is this package's own, in the layout of tensorflow-datasets.

    Args:
        split: `"train"`, `"validation"`, `"test"`, or a slice.
        length: `1024`, of 127 symbols as in the Reformer paper, or `256`, of
            32 symbols. Defaults to `1024`.
        data_dir: Folder of prepared data sets. Defaults to that of
            tensorflow-datasets.

    Returns:
        dataset: Triples of int32 tokens, int32 labels and float32 weights,
            `(length,)` each.

    Raises:
        ImportError: if the extra `tfds` is missing.
        ValueError: if there is no such length or split, or the prepared
            folder is damaged.
    """
    if length not in (256, 1024):
        raise ValueError(f"Expected 256 or 1024. Received: length={length!r}")
    examples = _examples(f"duplication/length_{length}", split, data_dir)
    return examples.map(
        lambda row: (row["tokens"], row["labels"], row["weights"])
    )


def _examples(name: str, split: str, data_dir) -> tf.data.Dataset:
    return read_split(prepared_builder(name, data_dir), split, name)
