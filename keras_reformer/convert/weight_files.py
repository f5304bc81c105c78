"""The arrays of a checkpoint's folder, in one file or in shards."""

import pathlib

from keras_reformer.convert.torch_files import read_torch_file
from keras_reformer.files import existing, read_json, reading

SAFETENSORS = "model.safetensors"
_INDEX = ".index.json"
# In the order of preference.
_FILES = (
    SAFETENSORS,
    SAFETENSORS + _INDEX,
    "pytorch_model.bin",
    "pytorch_model.bin" + _INDEX,
)


def read_weights(directory):
    """All arrays of a folder.

    Args:
        directory: path of a folder with `model.safetensors` or
            `pytorch_model.bin`, or with the index of either's shards.

    Returns:
        dict of arrays by their names.

    Raises:
        ValueError: if there are none, or a file or shard is missing or
            damaged.
    """
    path = existing(directory, _FILES)
    read = _read_shards if path.name.endswith(_INDEX) else read_file
    return read(path)


def read_file(path):
    """The arrays of one file, by their names."""
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    from safetensors.numpy import load_file

    with reading(path, "a safetensors file"):
        return load_file(path)


def _read_shards(index):
    """The arrays of all files that an index lists."""
    content = read_json(index)
    with reading(index, "an index that names each weight's file beside it"):
        shards = {}
        for name, file in content["weight_map"].items():
            if pathlib.PurePath(file).name != file:
                raise ValueError(f"{file!r} is no name of a file")
            shards.setdefault(file, []).append(name)
    missing = [file for file in shards if not (index.parent / file).is_file()]
    if missing:
        raise ValueError(
            f"The checkpoint lacks shards. Expected the {len(shards)} that "
            f"its index lists. Received: missing={missing}, index="
            f"{str(index)!r}"
        )
    weights = {}
    for file, names in shards.items():
        found = read_file(index.parent / file)
        lacking = [name for name in names if name not in found]
        if lacking:
            raise ValueError(
                "A shard lacks weights that its index places there. Expected "
                f"{lacking}. Received: path={str(index.parent / file)!r}"
            )
        weights |= found
    return weights
