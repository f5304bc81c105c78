"""enwik8 for tensorflow-datasets."""

import zipfile

import tensorflow_datasets.public_api as tfds
from etils import epath

_URL = "https://mattmahoney.net/dc/enwik8.zip"
_NAMES = ("enwik8", "enwik8.zip")
_INSTRUCTIONS = (
    f"Without a network: get {_URL} by other means and put it, or the file "
    "`enwik8` that is in it, into a folder that is given as `manual_dir`."
)


class Enwik8Config(tfds.core.BuilderConfig):
    """How a split is cut into examples.

    Args:
        block_length: int. Bytes of an example, or None for one example of
            the whole split.
        **kwargs: of `tfds.core.BuilderConfig`.
    """

    def __init__(self, block_length=None, **kwargs):
        super().__init__(**kwargs)
        self.block_length = block_length


class Builder(tfds.core.GeneratorBasedBuilder):
    """The first 100,000,000 bytes of Wikipedia, split 90 to 5 to 5."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        Enwik8Config(
            name="splits", description="A split is one example, as bytes."
        ),
        Enwik8Config(
            name="blocks_65536",
            description="Neighbouring bytes in their order, 65,536 to an "
            "example; a split's last example is shorter.",
            block_length=65536,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _INSTRUCTIONS
    # Bytes of the splits, in this order.
    SIZES = {
        "train": 90_000_000,
        "validation": 5_000_000,
        "test": 5_000_000,
    }

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            homepage="https://mattmahoney.net/dc/textdata.html",
            # Blocks are neighbours, so that one may join them again.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        path = self._manual_file(dl_manager)
        if path is None:
            path = dl_manager.download_and_extract(_URL) / "enwik8"
        text = self._read(path)
        generators, start = {}, 0
        for split, size in self.SIZES.items():
            part = text[start : start + size]
            generators[split] = self._generate_examples(part)
            start += size
        return generators

    def _generate_examples(self, text):
        length = self.builder_config.block_length or len(text)
        for number, start in enumerate(range(0, len(text), length)):
            yield number, {"text": text[start : start + length]}

    def _manual_file(self, dl_manager):
        """The file that the user put there, or None."""
        try:
            return find_file(dl_manager.manual_dir)
        # There is no such folder, it is empty, or it has other files.
        except (AssertionError, ValueError):
            return None

    def _read(self, path):
        expected = sum(self.SIZES.values())
        wrong = None
        try:
            text = _bytes_of(path)
            if len(text) != expected:
                wrong = f"It has {len(text)} bytes"
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            wrong = f"It is damaged ({error})"
        if wrong:
            raise ValueError(
                f"The file is not enwik8. {wrong}. Expected {expected} bytes, "
                f"or a zip file with them. {_INSTRUCTIONS} Received: "
                f"path={str(path)!r}"
            )
        return text


def find_file(folder):
    """The path of `enwik8` or `enwik8.zip` in a folder.

    Args:
        folder: Path of a folder.

    Raises:
        ValueError: if neither is there.
    """
    folder = epath.Path(folder)
    paths = [folder / name for name in _NAMES]
    # Where data sets are prepared, there is a folder of this name.
    found = [path for path in paths if path.exists() and not path.is_dir()]
    if not found:
        raise ValueError(
            f"There is no enwik8. Expected one of {_NAMES} in the folder. "
            f"{_INSTRUCTIONS} Received: manual_dir={str(folder)!r}"
        )
    return found[0]


def _bytes_of(path):
    with path.open("rb") as file:
        if path.suffix != ".zip":
            return file.read()
        with zipfile.ZipFile(file) as archive:
            return archive.read("enwik8")
