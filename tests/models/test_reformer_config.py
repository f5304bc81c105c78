import dataclasses
import inspect

import pytest

from keras_reformer.models import ReformerBackbone
from keras_reformer.models.reformer_config import ReformerConfig
from tests.support import tiny

PARAMETERS = inspect.signature(ReformerBackbone).parameters.values()
ARGUMENTS = [p.name for p in PARAMETERS if p.name not in ("dtype", "kwargs")]


def make_config(**options):
    defaults = {p.name: p.default for p in PARAMETERS if p.name in ARGUMENTS}
    return ReformerConfig(**{**defaults, **tiny.SIZES, **options}).resolve()


def test_fields_are_the_backbones_arguments_in_their_order():
    fields = [field.name for field in dataclasses.fields(ReformerConfig)]
    assert fields == ARGUMENTS
    assert list(make_config().as_dict()) == ARGUMENTS


def test_nothing_of_it_can_be_changed():
    config = make_config(num_buckets=[4, 4])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_hashes = 2
    config.as_dict()["num_buckets"].append(2)
    config.as_dict()["attention_layers"].append("lsh")
    assert config.num_buckets == (4, 4)
    assert config.attention_layers == ("local", "lsh")


def test_what_is_resolved_stays_when_resolved_again():
    options = {"scope": "chunk", "causal": False, "attention_layers": "lsh"}
    for config in (make_config(), make_config(**options)):
        assert config.resolve() == config
        assert ReformerConfig(**config.as_dict()).resolve() == config


def test_what_follows_from_other_arguments():
    config = make_config()
    assert config.key_dim == 8
    assert config.local_chunk_length == config.chunk_length == 8
    assert config.lsh_num_chunks_after == config.local_num_chunks_after == 0
    assert (config.query_key_kernel_size, config.center_hashes) == (2, True)
    assert make_config(duplicates="importance").center_hashes is False
    published = make_config(scope="chunk", causal=False)
    assert published.query_key_kernel_size == 1
    assert published.center_hashes is False
    assert published.lsh_num_chunks_after == 1
