"""What the published model has not is refused, not left out of its files."""

import dataclasses

import pytest

from keras_reformer import convert
from keras_reformer.convert.configs import from_published, to_published
from keras_reformer.models.reformer_config import ReformerConfig
from tests.support import tiny

OPTIONS = {**tiny.PUBLISHED, "causal": True, "activation": "relu"}
# By argument, another value than that of `OPTIONS`.
WRITTEN = {
    "vocabulary_size": 13,
    "num_layers": 1,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 8,
    "max_sequence_length": 60,
    "attention_layers": ("lsh",),
    "key_dim": 4,
    "num_hashes": 3,
    "num_buckets": (2, 4),
    "chunk_length": 4,
    "causal": False,
    "dropout": 0.1,
    "local_chunk_length": 4,
    "lsh_num_chunks_before": 2,
    "lsh_num_chunks_after": 1,
    "local_num_chunks_before": 2,
    "local_num_chunks_after": 1,
    "activation": "gelu",
    "epsilon": 1e-5,
    "axial_shape": (10, 10),
    "axial_dims": (8, 8),
    "lsh_dropout": 0.1,
    "local_dropout": 0.1,
}
REFUSED = {
    "scope": "bucket",
    "wrap": False,
    "position_embedding": "learned",
    "merge": "mean",
    "position_bias": "alibi",
    "normalization": "rms_norm",
    "query_key_kernel_size": 2,
    "center_hashes": True,
    "duplicates": "discount",
    "num_key_value_heads": 1,
    "num_global_tokens": 3,
}
# Of training and memory, or without effect where it would be written.
OF_NO_MATTER = {
    "recompute": False,
    "feed_forward_chunk_length": 7,
    "shared_dropout": True,
    "stochastic_depth": 0.1,
    "kernel_initializer": "he_normal",
    "kernel_regularizer": "l2",
    "rotary_layers": "all",
    "seed": 3,
}
# What a change needs besides.
BESIDES = {
    "num_heads": {"num_key_value_heads": 4},
    "hidden_dim": {"axial_dims": (8, 24)},
    "position_embedding": {"axial_shape": None, "axial_dims": None},
}


@pytest.fixture(scope="module")
def arguments():
    return tiny.make_backbone(**OPTIONS).get_config()


def changed(arguments, name, value):
    given = {key: arguments[key] for key in fields()}
    given |= {name: value, **BESIDES.get(name, {})}
    return ReformerConfig(**given).resolve().as_dict()


def fields():
    return [field.name for field in dataclasses.fields(ReformerConfig)]


def test_every_argument_has_its_place():
    assert sorted({**WRITTEN, **REFUSED, **OF_NO_MATTER}) == sorted(fields())


@pytest.mark.parametrize("name", WRITTEN)
def test_written(arguments, name):
    given = changed(arguments, name, WRITTEN[name])
    config = to_published(given)
    assert config != to_published(arguments)
    read = from_published(config)[name]
    if name == "attention_layers":
        read = read[:1]
    assert read == given[name] != arguments[name]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(arguments, name):
    given = changed(arguments, name, REFUSED[name])
    with pytest.raises(
        ValueError, match=f"no such variant.*Expected .*{name}="
    ):
        to_published(given)


def test_an_argument_that_nobody_thought_of_is_refused(arguments, monkeypatch):
    """A new field of the config, which no table here or there knows."""
    monkeypatch.delitem(OF_NO_MATTER, "seed")
    monkeypatch.setattr(
        "keras_reformer.convert.configs._UNWRITTEN",
        tuple(OF_NO_MATTER),
    )
    with pytest.raises(
        ValueError, match="Expected seed=None. Received: seed=0"
    ):
        to_published(arguments)


@pytest.mark.parametrize("name", OF_NO_MATTER)
def test_what_does_not_matter_is_left_out(arguments, name):
    given = changed(arguments, name, OF_NO_MATTER[name])
    assert to_published(given) == to_published(arguments)


def test_models_say_so():
    model = tiny.make_model(**{**OPTIONS, "num_key_value_heads": 1})
    with pytest.raises(
        ValueError, match="Expected num_key_value_heads=2. Received: .*=1"
    ):
        convert.to_huggingface(model)
