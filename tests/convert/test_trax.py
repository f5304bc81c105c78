"""trax's checkpoints."""

import gzip
import pickle

import numpy as np
import pytest

import keras_reformer
from keras_reformer import convert
from tests.support import published
from tests.support.published import CONFIG

IDS = np.random.default_rng(0).integers(0, 13, (2, 19)).astype("int32")
# What no array of a checkpoint tells.
OTHERS = {
    name: CONFIG[name]
    for name in (
        "local_attn_chunk_length",
        "lsh_attn_chunk_length",
        "num_buckets",
        "num_hashes",
        "hidden_dropout_prob",
    )
}


def write(path, checkpoint, protocol=4):
    with gzip.open(path, "wb") as file:
        pickle.dump(checkpoint, file, protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_equals_the_same_model_in_the_other_layout(tmp_path, nested, protocol):
    checkpoint = {"weights": published.trax_weights(nested=nested), "step": 7}
    path = write(tmp_path / "model.pkl.gz", checkpoint, protocol)
    model = convert.load_trax(path, OTHERS)
    _, weights = convert.to_huggingface(model)
    expected = published.language_model()
    assert set(weights) == set(expected)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, expected[name])
    other = convert.from_huggingface(CONFIG, expected)
    options = published.options_of(other.backbone) | {"local_dropout": 0.05}
    assert published.options_of(model.backbone) == options


class Calls:
    """Asks its reader to run a command."""

    def __reduce__(self):
        return print, ("run",)


def test_nothing_in_a_pickle_is_run(tmp_path, capsys):
    path = write(tmp_path / "model.pkl.gz", {"weights": Calls()})
    with pytest.raises(ValueError, match="builtins.print"):
        convert.load_trax(path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "checkpoint, message",
    [
        ([], "no trax checkpoint"),
        ({"weights": ()}, "not those of a Reformer"),
        ({"weights": np.zeros(3)}, "not those of a Reformer"),
    ],
)
def test_other_files_are_refused(tmp_path, checkpoint, message):
    path = write(tmp_path / "model.pkl.gz", checkpoint)
    with pytest.raises(ValueError, match=message):
        convert.load_trax(path)


def test_other_blocks_are_refused(tmp_path):
    weights = list(published.trax_weights())
    entries = list(weights[5])
    entries[2] = entries[2][:1] + (np.zeros(3),)
    weights[5] = tuple(entries)
    path = write(tmp_path / "model.pkl.gz", {"weights": tuple(weights)})
    with pytest.raises(ValueError, match="block=0, 4 and 7"):
        convert.load_trax(path, OTHERS)


def test_a_causal_checkpoint_as_a_masked_model(tmp_path):
    checkpoint = {"weights": published.trax_weights()}
    path = write(tmp_path / "model.pkl.gz", checkpoint)
    model = convert.load_trax(path, {**OTHERS, "is_decoder": False})
    assert type(model) is keras_reformer.ReformerMaskedLM
