"""What `keras-reformer convert` does."""

import json
import pathlib

import keras

from keras_reformer import convert
from keras_reformer.files import reading


def run(source, target, config=None):
    """Turns a published checkpoint into a Keras file, or back.

    Args:
        source: path of a folder in Hugging Face's layout, of a trax
            checkpoint (`.pkl.gz`), or of a Keras file (`.keras`).
        target: path of the Keras file to write; of a folder if the source is
            a Keras file.
        config: path of a JSON file, or None: what a trax checkpoint does not
            tell, or entries that replace those of `config.json`; see
            `convert.load_trax` and `convert.load_huggingface`.

    Returns:
        str. What was written, in a line.

    Raises:
        ValueError: if the source does not exist or its kind is not known.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    if not source.exists():
        raise ValueError(f"There is no such file. Received: IN={str(source)!r}")
    if source.suffix == ".keras":
        with reading(source, "a Keras file"):
            model = keras.models.load_model(source)
        convert.save_huggingface(model, target)
        return _summary(model, target)
    if target.suffix != ".keras":
        raise ValueError(
            "A checkpoint becomes a Keras file. Expected a name that ends in "
            f".keras. Received: OUT={str(target)!r}"
        )
    model = _load(source, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(target)
    return _summary(model, target)


def _load(source, config):
    load = _loader(source)
    if config is None:
        return load(source)
    with reading(config, "JSON of entries of a configuration"):
        entries = dict(json.loads(pathlib.Path(config).read_bytes()))
    return load(source, entries)


def _loader(source):
    if source.is_dir():
        return convert.load_huggingface
    if source.name.endswith(".pkl.gz"):
        return convert.load_trax
    raise ValueError(
        "This is no checkpoint that can be read. Expected a folder with "
        "config.json, a .pkl.gz or a .keras file. Received: "
        f"IN={str(source)!r}"
    )


def _summary(model, target):
    return (
        f"{type(model).__name__} of {model.count_params():,} parameters: "
        f"{target}"
    )
