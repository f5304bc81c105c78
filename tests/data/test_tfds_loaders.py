"""Builders in the layout of tensorflow-datasets, and loaders over others."""

import ast
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import data
from keras_reformer.data import tfds_examples
from tests import house

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("importlib_resources")
# What tensorflow_datasets.testing needs and does not declare.
pytest.importorskip("dill")

from keras_reformer.data.datasets.duplication import (  # noqa: E402
    duplication_dataset_builder,
)
from keras_reformer.data.datasets.enwik8 import (  # noqa: E402
    enwik8_dataset_builder,
)

DUMMY = Path(enwik8_dataset_builder.__file__).parent / "dummy_data"
TEXT = (DUMMY / "enwik8").read_bytes()
END = data.ByteTokenizer.end_id


@pytest.fixture(autouse=True, scope="module")
def small():
    """Builders of a few examples: of dummy data, and fewer to draw."""
    with pytest.MonkeyPatch.context() as patch:
        enwik8 = {"train": 90, "validation": 5, "test": 5}
        patch.setattr(enwik8_dataset_builder.Builder, "SIZES", enwik8)
        sizes = {"train": 4, "validation": 2, "test": 3}
        patch.setattr(duplication_dataset_builder.Builder, "SIZES", sizes)
        yield


class Enwik8Test(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = enwik8_dataset_builder.Builder
    SPLITS = {"train": 1, "validation": 1, "test": 1}
    BUILDER_CONFIG_NAMES_TO_TEST = ["splits"]


class DuplicationTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = duplication_dataset_builder.Builder
    SPLITS = {"train": 4, "validation": 2, "test": 3}
    BUILDER_CONFIG_NAMES_TO_TEST = ["length_256"]
    # It has no files to read.
    EXAMPLE_DIR = str(DUMMY)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder in which both are prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    data.load_duplication("train", length=256, data_dir=folder)
    data.load_enwik8("train", data_dir=folder, manual_dir=DUMMY)
    return folder


def arrays(dataset):
    return list(dataset.as_numpy_iterator())


# === enwik8 ===


def test_published_sizes():
    source = Path(enwik8_dataset_builder.__file__).read_text()
    for size in ("90_000_000", "5_000_000"):
        assert size in source
    sums = (DUMMY.parent / "checksums.tsv").read_text().split("\t")
    assert sums[0].endswith("/enwik8.zip") and sums[1] == "36445475"


def test_enwik8_is_split_by_position(data_dir):
    parts = [
        data.load_enwik8(split, data_dir=data_dir)
        for split in ("train", "validation", "test")
    ]
    assert [len(part) for part in parts] == [90, 5, 5]
    assert b"".join(part.tobytes() for part in parts) == TEXT
    corpus = data.read_corpus("tfds:enwik8", data_dir=data_dir, split="train")
    np.testing.assert_array_equal(corpus, parts[0])


def test_blocks_are_the_text_in_its_order(tmp_path, monkeypatch):
    config = enwik8_dataset_builder.Builder.BUILDER_CONFIGS[1]
    monkeypatch.setattr(config, "block_length", 16)
    with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as archive:
        archive.writestr("enwik8", TEXT)
    builder = tfds_examples.prepared_builder(
        "enwik8/blocks_65536", tmp_path, tmp_path
    )
    found = arrays(tfds_examples.read_split(builder, "train", "enwik8"))
    assert [len(row["text"]) for row in found] == 5 * [16] + [10]
    assert b"".join(row["text"] for row in found) == TEXT[:90]


def test_a_missing_file_says_where_to_put_it(tmp_path):
    with pytest.raises(ValueError, match="no enwik8.*enwik8.zip") as error:
        data.load_enwik8(data_dir=tmp_path, manual_dir=tmp_path / "here")
    assert f"manual_dir={str(tmp_path / 'here')!r}" in str(error.value)


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def fail(manager, url):
        raise ConnectionError(f"no way to {url}")

    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", fail)
    with pytest.raises(ValueError, match="could not be prepared.*no way to"):
        data.load_enwik8(data_dir=tmp_path)
    with pytest.raises(ValueError, match="by other means and put it"):
        data.read_corpus("tfds:enwik8", data_dir=tmp_path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("enwik8", TEXT[:-1], "has 99 bytes. Expected 100 bytes"),
        ("enwik8", TEXT + b"x", "has 101 bytes"),
        ("enwik8.zip", b"PK no zip", "is damaged"),
    ],
    ids=["short", "long", "no zip"],
)
def test_another_file_is_not_enwik8(tmp_path, name, content, message):
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"not enwik8.*{message}.*{name}"):
        data.load_enwik8(data_dir=tmp_path, manual_dir=folder)


# === Duplication ===


def test_duplication_is_what_fit_takes(data_dir):
    rows = arrays(data.load_duplication(length=256, data_dir=data_dir))
    tokens, labels, weights = (
        np.stack(part) for part in zip(*rows, strict=True)
    )
    np.testing.assert_array_equal(tokens[:, :128], tokens[:, 128:])
    np.testing.assert_array_equal(labels, np.roll(tokens, -1, axis=1))
    np.testing.assert_array_equal(weights.sum(1), 4 * [127])
    assert len({row.tobytes() for row in tokens}) == 4
    with pytest.raises(ValueError, match="length=100"):
        data.load_duplication(length=100)
    with pytest.raises(ValueError, match="no such split.*split='dev'"):
        data.load_duplication("dev", length=256, data_dir=data_dir)


# === Folders that are not whole ===


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


DAMAGES = {
    "a file is missing": ("*-train.*", Path.unlink, "without dupl.*train"),
    "a file is cut": ("*-train.*", cut, "a part of split 'train' only"),
    "no description": ("dataset_info.json", Path.unlink, "without a dataset"),
    "a damaged one": ("dataset_info.json", cut, "is no JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(damage, data_dir, tmp_path):
    pattern, change, message = DAMAGES[damage]
    shutil.copytree(data_dir / "duplication", tmp_path / "duplication")
    for path in list(tmp_path.rglob(pattern)):
        change(path)
    with pytest.raises(ValueError, match=f"damaged.*{message}.*Remove it"):
        data.load_duplication("test", length=256, data_dir=tmp_path)


# === Builders of tensorflow-datasets, with made-up examples ===


@pytest.fixture(scope="module")
def mocked():
    with tfds.testing.mock_data(num_examples=3):
        yield


def text_examples(**rows):
    """A data set of these texts, in the place of made-up ones."""
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    return tfds.testing.mock_data(
        as_dataset_fn=lambda *args, **options: dataset
    )


def test_reviews(mocked, tmp_path):
    dataset = data.load_imdb_reviews("test", data_dir=tmp_path)
    ids, labels = zip(*arrays(dataset), strict=True)
    assert len(ids) == 3 and set(labels) <= {0, 1}
    assert all(row.dtype == np.int32 and row.min() > 1 for row in ids)
    ((inputs, labels),) = arrays(data.pad_documents(dataset, 9, 3))
    assert inputs["token_ids"].shape == inputs["padding_mask"].shape == (3, 9)


def test_translations(mocked, tmp_path):
    pairs = data.load_wmt14_translate("test", target="fr", data_dir=tmp_path)
    batches = data.bucket_by_length(pairs, (16, 64), 1)
    for pair, batch in zip(arrays(pairs), arrays(batches), strict=True):
        encoder, decoder = pair["encoder_token_ids"], pair["decoder_token_ids"]
        assert encoder[-1] == decoder[0] == decoder[-1] == END
        assert (encoder[:-1] > 1).all() and (decoder[1:-1] > 1).all()
        assert sorted(batch) == [
            "decoder_padding_mask",
            "decoder_token_ids",
            "encoder_padding_mask",
            "encoder_token_ids",
        ]
    with text_examples(de=["ja"], en=["yes"]):
        (pair,) = arrays(data.load_wmt14_translate(data_dir=tmp_path))
    expected = [END, *data.ByteTokenizer().tokenize("ja"), END]
    np.testing.assert_array_equal(pair["decoder_token_ids"], expected)
    for wrong in ({"source": "de"}, {"source": "fr", "target": "de"}):
        with pytest.raises(ValueError, match="English and one other"):
            data.load_wmt14_translate(**wrong)


def test_photographs(mocked, tmp_path):
    image = np.arange(32 * 32 * 3).reshape(1, 32, 32, 3).astype(np.uint8)
    with text_examples(image=image):
        dataset = data.load_downsampled_imagenet(size=32, data_dir=tmp_path)
        assert dataset.element_spec == tf.TensorSpec((3072,), tf.int32)
        (ids,) = arrays(dataset)
    np.testing.assert_array_equal(ids, data.image_tokens(image)[0])
    # Made-up images have other sizes.
    dataset = data.load_downsampled_imagenet(data_dir=tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError, match="64,64,3"):
        arrays(dataset)
    with pytest.raises(ValueError, match="size=16"):
        data.load_downsampled_imagenet(size=16)


def test_books(mocked, tmp_path):
    books = data.load_pg19("validation", data_dir=tmp_path)
    (batch,) = arrays(data.pad_documents(books, 8, 3, crop_seed=0))
    assert batch["token_ids"].shape == (3, 8)


def test_articles_lose_their_marks(mocked, tmp_path):
    assert len(arrays(data.load_wiki40b(data_dir=tmp_path))) == 3
    text = "\n_START_ARTICLE_\nA_START\n_START_PARAGRAPH_\nB_NEWLINE_C\n"
    with text_examples(text=[text]):
        articles = data.load_wiki40b(language="de", data_dir=tmp_path)
        (ids,) = arrays(articles)
    assert data.ByteTokenizer().detokenize(ids) == "A_START\nB\nC"


def test_another_tokenizer(mocked, tmp_path):
    class Tens:
        end_id = 7

        def tokenize(self, text):
            return [10] * len(text)

    with text_examples(de=["ja"], en=["yes"]):
        (pair,) = arrays(
            data.load_wmt14_translate(tokenizer=Tens(), data_dir=tmp_path)
        )
    np.testing.assert_array_equal(pair["encoder_token_ids"], [10, 10, 10, 7])


def test_the_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"keras-reformer\[tfds\]"):
        data.load_pg19()


def test_only_builders_import_the_library():
    package = Path(data.__file__).parent
    for path in package.glob("*.py"):
        tree = ast.parse(path.read_text())
        for found in house.imports(tree, f"keras_reformer/data/{path.name}"):
            is_late = found.inside_function
            assert is_late or "tensorflow_datasets" not in found.module
            assert is_late or ".datasets" not in found.module
