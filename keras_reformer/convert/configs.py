"""Hugging Face's configuration of a Reformer, and a backbone's arguments."""

import dataclasses
import inspect
import math
import numbers

from keras_reformer.layers import checks
from keras_reformer.models import ReformerBackbone
from keras_reformer.models.reformer_config import ReformerConfig

# What a key means that a configuration leaves out (transformers 5.23).
DEFAULTS = {
    "attention_head_size": 64,
    "attn_layers": ["local", "lsh", "local", "lsh", "local", "lsh"],
    "axial_pos_embds": True,
    "axial_pos_embds_dim": [64, 192],
    "axial_pos_shape": [64, 64],
    "feed_forward_size": 512,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.05,
    "hidden_size": 256,
    "is_decoder": False,
    "layer_norm_eps": 1e-12,
    "local_attention_probs_dropout_prob": 0.05,
    "local_attn_chunk_length": 64,
    "local_num_chunks_after": 0,
    "local_num_chunks_before": 1,
    "lsh_attention_probs_dropout_prob": 0.0,
    "lsh_attn_chunk_length": 64,
    "lsh_num_chunks_after": 0,
    "lsh_num_chunks_before": 1,
    "max_position_embeddings": 4096,
    "num_attention_heads": 12,
    "num_buckets": None,
    "num_hashes": 1,
    "vocab_size": 320,
}
_ACTIVATIONS = {
    "elu": "elu",
    "gelu": "gelu",
    "linear": "linear",
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
# Of the same meaning on both sides.
_SAME = {
    "vocabulary_size": "vocab_size",
    "num_heads": "num_attention_heads",
    "key_dim": "attention_head_size",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "feed_forward_size",
    "max_sequence_length": "max_position_embeddings",
    "attention_layers": "attn_layers",
    "num_hashes": "num_hashes",
    "chunk_length": "lsh_attn_chunk_length",
    "local_chunk_length": "local_attn_chunk_length",
    "lsh_num_chunks_before": "lsh_num_chunks_before",
    "lsh_num_chunks_after": "lsh_num_chunks_after",
    "local_num_chunks_before": "local_num_chunks_before",
    "local_num_chunks_after": "local_num_chunks_after",
    "causal": "is_decoder",
    "dropout": "hidden_dropout_prob",
    "lsh_dropout": "lsh_attention_probs_dropout_prob",
    "local_dropout": "local_attention_probs_dropout_prob",
    "epsilon": "layer_norm_eps",
}

# Of training or of memory, or of what is refused by another name
# (`rotary_layers` by `position_embedding`). All other arguments are written
# or have the one value that the published model has.
_UNWRITTEN = (
    "recompute",
    "feed_forward_chunk_length",
    "shared_dropout",
    "stochastic_depth",
    "kernel_initializer",
    "kernel_regularizer",
    "rotary_layers",
    "seed",
)


def from_published(config):
    """Arguments of a `ReformerBackbone` that computes the published model.

    Args:
        config: dict, as in a checkpoint's `config.json`. Keys left out take
            `DEFAULTS`; what does not concern the architecture is ignored.
    """
    config = {**DEFAULTS, **config}
    _check_types(config)
    checks.choice("hidden_act", config["hidden_act"], tuple(_ACTIVATIONS))
    arguments = {ours: config[theirs] for ours, theirs in _SAME.items()}
    shape, dims = config["axial_pos_shape"], config["axial_pos_embds_dim"]
    if not config["axial_pos_embds"]:
        # A learned table is a grid of one axis.
        shape, dims = (
            [config["max_position_embeddings"]],
            [config["hidden_size"]],
        )
    return {
        **arguments,
        "num_layers": len(config["attn_layers"]),
        "num_buckets": _num_buckets(config),
        "activation": _ACTIVATIONS[config["hidden_act"]],
        "axial_shape": list(shape),
        "axial_dims": list(dims),
        "scope": "chunk",
        "wrap": True,
    }


def to_published(arguments):
    """The way back: a configuration for a backbone's arguments.

    Args:
        arguments: dict of all of them, as `get_config` returns them.

    Raises:
        ValueError: if one of them would be another one on the way back.
    """
    arguments = _of_whole_depth(arguments)
    config = {theirs: arguments[ours] for ours, theirs in _SAME.items()}
    shape, dims = (
        arguments[name] or [] for name in ("axial_shape", "axial_dims")
    )
    config |= {
        "model_type": "reformer",
        "num_buckets": arguments["num_buckets"],
        "hidden_act": _published_activation(arguments["activation"]),
        "axial_pos_embds": len(shape) > 1,
        "axial_pos_shape": shape,
        "axial_pos_embds_dim": dims,
    }
    _check_written(arguments, from_published(config))
    return config


def _of_whole_depth(arguments):
    """Arguments with what they leave to be repeated or to follow."""
    kinds, depth = arguments["attention_layers"], arguments["num_layers"]
    rates = {
        name: arguments["dropout"]
        for name in ("lsh_dropout", "local_dropout")
        if arguments[name] is None
    }
    kinds = [kinds[i % len(kinds)] for i in range(depth)]
    return arguments | rates | {"attention_layers": kinds}


def _check_written(arguments, read):
    """Raises a `ValueError` if a file would not hold all arguments.

    Args:
        arguments: dict of a backbone's arguments.
        read: dict of those that the file holds.
    """
    parameters = inspect.signature(ReformerBackbone).parameters
    known = {
        field.name: read.get(field.name, parameters[field.name].default)
        for field in dataclasses.fields(ReformerConfig)
    }
    known = ReformerConfig(**known).resolve().as_dict()
    others = [
        name
        for name, value in known.items()
        if name not in _UNWRITTEN and value != arguments[name]
    ]
    if others:
        raise ValueError(
            "The published model has no such variant. Expected "
            f"{_listed(known, others)}. Received: {_listed(arguments, others)}"
        )


def _listed(values, names):
    return ", ".join(f"{name}={values[name]!r}" for name in names)


def _check_types(config):
    """Refuses entries of other types; their values are the layers' matter."""
    for name, default in DEFAULTS.items():
        value = config[name]
        examples = [None, 1, [1]] if name == "num_buckets" else [default]
        if not any(_is_like(value, example) for example in examples):
            raise ValueError(
                "An entry of the configuration is of another type. Expected "
                f"something like {name}={examples[-1]!r}. Received: "
                f"{name}={value!r}"
            )


def _is_like(value, example):
    if isinstance(example, list):
        return isinstance(value, list | tuple) and all(
            _is_like(each, example[0]) for each in value
        )
    kinds = {int: numbers.Integral, float: numbers.Real}
    kind = kinds.get(type(example), type(example))
    # To Python, a bool is an integer.
    return isinstance(value, kind) and (
        isinstance(value, bool) == isinstance(example, bool)
    )


def _published_activation(activation):
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    return names[checks.choice("activation", activation, tuple(names))]


def _num_buckets(config):
    """As given, or what the published model takes for its longest input."""
    if config["num_buckets"] is not None:
        return config["num_buckets"]
    length, chunk = (
        config[name]
        for name in ("max_position_embeddings", "lsh_attn_chunk_length")
    )
    checks.positive_int("lsh_attn_chunk_length", chunk)
    power = (2 * (length // chunk)).bit_length() - 1
    if 2**power <= 2 * max(math.isqrt(length // chunk), chunk):
        return 2**power
    return [2 ** (power // 2), 2 ** (power - power // 2)]
