"""Checkpoints in shards, and names that wrappers of modules changed."""

import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_reformer import convert
from tests.support import published
from tests.support.published import CONFIG

WEIGHTS = published.language_model()
SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
]


def write_shards(folder, names=SHARDS, save=save_file, index=None):
    """A checkpoint whose weights are dealt out to files in turn."""
    weight_map, shards = {}, {name: {} for name in names}
    for place, (name, array) in enumerate(WEIGHTS.items()):
        weight_map[name] = names[place % len(names)]
        shards[weight_map[name]][name] = array
    for file, arrays in shards.items():
        save(arrays, folder / file)
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    index = folder / (index or "model.safetensors.index.json")
    index.write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return weight_map


def assert_has_all_weights(model):
    for name, array in convert.to_huggingface(model)[1].items():
        np.testing.assert_array_equal(array, WEIGHTS[name])


def save_torch(arrays, path):
    """A state dict as `torch.save` writes it, without PyTorch."""
    with zipfile.ZipFile(path, "w") as archive:
        pickled = b"\x80\x02}"
        for key, (name, array) in enumerate(arrays.items()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
            pickled += text(name) + tensor(str(key), array) + b"s"
        archive.writestr("archive/data.pkl", pickled + b".")


def text(value):
    encoded = value.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def integer(value):
    return b"J" + int(value).to_bytes(4, "little")


def integers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(key, array):
    """`_rebuild_tensor_v2(storage, 0, shape, strides, False, {})`."""
    strides = [step // array.itemsize for step in array.strides]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + integer(array.size)
        + b"tQ"
        + integer(0)
        + integers(array.shape)
        + integers(strides)
        + b"\x89}tR"
    )


def test_shards_of_safetensors(tmp_path):
    write_shards(tmp_path)
    assert_has_all_weights(convert.load_huggingface(tmp_path))


def test_shards_of_torch(tmp_path):
    names = ["pytorch_model-00001-of-00002.bin", "other.bin"]
    index = "pytorch_model.bin.index.json"
    write_shards(tmp_path, names, save_torch, index)
    assert_has_all_weights(convert.load_huggingface(tmp_path))


def test_missing_shards_are_named(tmp_path):
    write_shards(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(ValueError, match=rf"lacks shards.*\['{SHARDS[1]}'\]"):
        convert.load_huggingface(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    write_shards(tmp_path)
    path = tmp_path / SHARDS[1]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"damaged.*{SHARDS[1]}"):
        convert.load_huggingface(tmp_path)


def test_a_shard_without_what_the_index_says_is_named(tmp_path):
    weight_map = write_shards(tmp_path)
    save_file({"other": np.zeros(3)}, tmp_path / SHARDS[0])
    name = next(name for name, file in weight_map.items() if file == SHARDS[0])
    with pytest.raises(ValueError, match=f"lacks weights.*{name}.*{SHARDS[0]}"):
        convert.load_huggingface(tmp_path)


@pytest.mark.parametrize(
    "content, reason",
    [
        ({}, "weight_map"),
        ([], "list"),
        ({"weight_map": ["a"]}, "items"),
        ({"weight_map": {"a": 3}}, "int"),
        ({"weight_map": {"a": "../other.safetensors"}}, "no name of a file"),
    ],
)
def test_a_damaged_index_is_named(content, reason, tmp_path):
    write_shards(tmp_path)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"index.json.*{reason}"):
        convert.load_huggingface(tmp_path)


@pytest.mark.parametrize(
    "rename",
    [
        "module.{}".format,
        "module.module.{}".format,
        "_orig_mod.{}".format,
        "module._orig_mod.{}".format,
        "model.{}".format,
        lambda name: name.replace(".layers.", "._fsdp_wrapped_module.layers."),
        lambda name: name.replace(
            ".attention.", "._checkpoint_wrapped_module.attention.", 1
        ),
    ],
)
def test_wrappers_in_names_are_left_out(rename):
    weights = {rename(name): array for name, array in WEIGHTS.items()}
    assert set(weights) != set(WEIGHTS)
    assert_has_all_weights(convert.from_huggingface(CONFIG, weights))


def test_wrappers_around_a_bare_model():
    weights = published.without_prefix(WEIGHTS)
    wrapped = {f"module.{name}": array for name, array in weights.items()}
    model = convert.from_huggingface(CONFIG, wrapped)
    assert set(convert.to_huggingface(model)[1]) == set(weights)


def test_an_array_with_and_without_a_wrapper_is_refused():
    bias = WEIGHTS["lm_head.bias"]
    weights = {**WEIGHTS, "module.lm_head.bias": bias}
    with pytest.raises(ValueError, match="twice.*module.lm_head.bias"):
        convert.from_huggingface(CONFIG, weights)
