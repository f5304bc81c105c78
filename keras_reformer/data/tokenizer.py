"""Tokenizers in the folders of presets: KerasHub's files."""

import base64
import inspect
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import keras

from keras_reformer.files import (
    existing,
    find_folder,
    read_json,
    reading,
    written_together,
)

_CONFIG, _ASSETS = "tokenizer.json", "assets/tokenizer"
# Names of presets whose tokens are bytes.
_OF_BYTES = ("tiny", "enwik8_64k")


class Tokenizer:
    """What turns something into token ids and back, saved beside a model.

    The base of this package's tokenizers. `Tokenizer.from_preset` returns the
    one that a preset has, of whatever class.

    Example:

    >>> import tempfile
    >>> tokenizer = keras_reformer.data.Tokenizer.from_preset("enwik8_64k")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokenizer.save_to_preset(folder)
    ...     tokenizer = keras_reformer.data.Tokenizer.from_preset(folder)
    >>> tokenizer.detokenize(tokenizer.tokenize("To be"))
    'To be'
    """

    # By argument, the file of a preset that holds its value. In a config the
    # value is base64.
    _files: Mapping[str, str] = {}

    @classmethod
    def from_preset(cls, preset: str | os.PathLike) -> Self:
        """The tokenizer of a preset.

        Args:
            preset: path of a folder to which a tokenizer was saved;
                `"hf://owner/name"`, such a folder on the Hugging Face hub; or
                the name of a preset whose tokens are bytes, `"tiny"` or
                `"enwik8_64k"`.

        Returns:
            tokenizer: of the class that was saved.

        Raises:
            ValueError: if the preset has no tokenizer, one of another class,
                or a damaged file.
        """
        if isinstance(preset, str) and preset in _OF_BYTES:
            name, config = "keras_reformer>ByteTokenizer", {}
            return cls._class_of(name, preset).from_config(config)
        folder = find_folder(preset, _OF_BYTES, (_CONFIG, f"{_ASSETS}/*"))
        path = existing(folder, [_CONFIG])
        content = read_json(path)
        found = cls._class_of(content.get("registered_name"), path)
        files = {
            name: existing(folder / _ASSETS, [file])
            for name, file in found._files.items()
        }
        encoded = {k: to_text(file.read_bytes()) for k, file in files.items()}
        read = " and ".join(str(each) for each in (path, *files.values()))
        with reading(read, f"what {found.__name__} is made of"):
            return found.from_config({**content["config"], **encoded})

    def save_to_preset(self, preset_dir: str | os.PathLike) -> None:
        """Saves the tokenizer as KerasHub does, beside a model or alone.

        `tokenizer.json` has its configuration, and `assets/tokenizer` the
        vocabulary of one that has such a file.

        Args:
            preset_dir: path of a folder, which is made.

        Raises:
            ValueError: if the class is not registered, so that nobody could
                read it.
        """
        folder = pathlib.Path(preset_dir)
        content = keras.saving.serialize_keras_object(self)
        name = content["registered_name"]
        if keras.saving.get_registered_object(name) is not type(self):
            raise ValueError(
                "A tokenizer is read by its class's registered name. Expected "
                "@keras.saving.register_keras_serializable() on the class. "
                f"Received: {type(self).__name__}"
            )
        files = {
            file: base64.b64decode(content["config"].pop(name))
            for name, file in self._files.items()
        }
        if files:
            with written_together(folder / _ASSETS) as new:
                for file, value in files.items():
                    (new / file).write_bytes(value)
        with written_together(folder) as new:
            text = json.dumps(content, indent=4)
            (new / _CONFIG).write_text(text, encoding="utf-8")

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The tokenizer of what `get_config` returned."""
        values = {
            name: base64.b64decode(value) if name in cls._files else value
            for name, value in config.items()
        }
        return cls(**values)

    @classmethod
    def _class_of(cls, name, preset):
        """The class of a registered name, if it is this one or below it."""
        found = None
        if isinstance(name, str):
            found = keras.saving.get_registered_object(name)
        if not inspect.isclass(found) or not issubclass(found, cls):
            raise ValueError(
                "The preset's tokenizer is of another class. Expected "
                f"{cls.__name__} of keras_reformer.data, or one derived from "
                f"it. Received: registered_name={name!r}, "
                f"preset={str(preset)!r}"
            )
        return found


def to_text(value: bytes) -> str:
    """A file's content, as a config holds it."""
    return base64.b64encode(value).decode("ascii")
