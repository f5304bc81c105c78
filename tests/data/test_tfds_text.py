import shutil
import sys

import numpy as np
import pytest

from keras_reformer.data import read_corpus

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("importlib_resources")


class TinyText(tfds.core.GeneratorBasedBuilder):
    """Two splits of local text, two text features and one that is none."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="lower"),
        tfds.core.BuilderConfig(name="upper"),
    ]

    def _info(self):
        features = {
            "body": tfds.features.Text(),
            "title": tfds.features.Text(),
            "stars": tfds.features.Scalar(np.int32),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples("ab"),
            "test": self._generate_examples("z"),
        }

    def _generate_examples(self, letters):
        upper = self.builder_config.name == "upper"
        for star, letter in enumerate(letters):
            body = f"{letter} böok"
            yield (
                letter,
                {
                    "body": body.upper() if upper else body,
                    "title": letter * 3,
                    "stars": star,
                },
            )


class TinyNumbers(tfds.core.GeneratorBasedBuilder):
    """No text at all."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"stars": np.int32})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"stars": 5}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def read(name, data_dir, **kwargs):
    return read_corpus(name, data_dir=data_dir, **kwargs).tobytes()


def test_all_splits_and_text_features(data_dir):
    text = read("tfds:tiny_text/lower", data_dir).decode()
    pieces = text.split("\n")
    assert sorted(pieces) == sorted(
        ["a böok", "aaa", "b böok", "bbb", "z böok", "zzz"]
    )
    bodies, titles = pieces[0::2], pieces[1::2]
    assert [body[0] * 3 for body in bodies] == titles


def test_one_config_and_split(data_dir):
    text = read("tfds:tiny_text/upper", data_dir, split="test")
    assert text.decode() == "Z BÖOK\nzzz"


def test_a_slice_of_a_split(data_dir):
    text = read("tfds:tiny_text/lower", data_dir, split="train[:1]")
    assert text.count(b"\n") == 1


def test_order_does_not_change(data_dir):
    texts = {read("tfds:tiny_text/lower", data_dir) for _ in range(3)}
    assert len(texts) == 1


def test_mock_data(data_dir):
    read("tfds:tiny_text/lower", data_dir)
    with tfds.testing.mock_data(num_examples=4):
        text = read("tfds:tiny_text/lower", data_dir, split="train")
    assert text.count(b"\n") >= 4 * 2 - 1


def test_no_such_data_set(data_dir):
    with pytest.raises(ValueError, match="no such data set") as error:
        read("tfds:tiny_nothing", data_dir)
    assert "source='tfds:tiny_nothing'" in str(error.value)


def test_no_such_config(data_dir):
    with pytest.raises(ValueError, match="title_case"):
        read("tfds:tiny_text/title_case", data_dir)


def test_no_such_split(data_dir):
    with pytest.raises(ValueError, match="no such split.*'test'.*'dev'"):
        read("tfds:tiny_text/lower", data_dir, split="dev")


def test_no_text_feature(data_dir):
    with pytest.raises(ValueError, match=r"no text feature.*\['stars'\]"):
        read("tfds:tiny_numbers", data_dir)


def test_damaged_files(data_dir, tmp_path):
    read("tfds:tiny_text/lower", data_dir)
    shutil.copytree(data_dir / "tiny_text", tmp_path / "tiny_text")
    for path in tmp_path.rglob("*.tfrecord*"):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged.*tfds:tiny_text/lower"):
        read("tfds:tiny_text/lower", tmp_path)


@pytest.mark.parametrize(
    "module", ["tensorflow_datasets", "importlib_resources"]
)
def test_missing_library_names_the_extra(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"keras-reformer\[tfds\]"):
        read_corpus("tfds:tiny_text")
