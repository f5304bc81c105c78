"""Hugging Face's Reformer checkpoints to Keras models, and back."""

import collections.abc
import json
import pathlib
import warnings

import numpy as np

from keras_reformer.convert.arrays import check_arrays
from keras_reformer.convert.configs import from_published, to_published
from keras_reformer.convert.layout import (
    is_buffer,
    published_weights,
    without_wrappers,
)
from keras_reformer.convert.rotations import (
    get_rotations,
    set_rotations,
)
from keras_reformer.convert.weight_files import (
    SAFETENSORS,
    read_file,
    read_weights,
)
from keras_reformer.files import (
    existing,
    read_json,
    reading,
    written_together,
)
from keras_reformer.layers.static_state import sublayers_of
from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerQuestionAnswering,
)

_PREFIX = "reformer."
_LM_BIAS = "lm_head.bias"
_OTHER_LM_BIAS = "lm_head.decoder.bias"
_CONFIG, _ROTATIONS = "config.json", "rotations.safetensors"
# By model, the published names of the head's layers, and ours.
_HEADS = {
    ReformerBackbone: {},
    ReformerCausalLM: {"lm_head.decoder": "head"},
    ReformerMaskedLM: {"lm_head.decoder": "head"},
    ReformerClassifier: {
        "classifier.dense": "pooler",
        "classifier.out_proj": "head",
    },
    ReformerQuestionAnswering: {"qa_outputs": "head"},
}


def from_huggingface(config, weights, rotations=None):
    """The published model as a Keras model, number for number.

    The model hashes, pads and attends as published (`scope="chunk"`,
    `wrap=True`). Which head it has follows from the names of the weights.
    Unlike transformers 5.0 to 5.23, it adds the language model's bias.

    Args:
        config: dict, as in `config.json`. Keys left out take the defaults of
            `ReformerConfig`.
        weights: mapping of the state dict's names to arrays. What wrappers
            put into names (`module.`, `_orig_mod.`) is left out.
        rotations: mapping of layer numbers to float arrays `(num_heads,
            key_dim, num_hashes, sum(num_buckets) // 2)`, to hash with at
            inference. Layers left out draw their own.

    Returns:
        `ReformerCausalLM` or, without `is_decoder`, `ReformerMaskedLM` for a
        language model's head; `ReformerClassifier` and
        `ReformerQuestionAnswering` for theirs; `ReformerBackbone` for none.

    Raises:
        ValueError: if weights are missing, left over or of another shape
            (all are listed), or the configuration is not supported.

    Example:

    >>> backbone = keras_reformer.ReformerBackbone(
    ...     vocabulary_size=11, num_layers=2, num_heads=2, hidden_dim=8,
    ...     intermediate_dim=16, max_sequence_length=64, scope="chunk",
    ...     wrap=True, activation="relu",
    ... )
    >>> model = keras_reformer.ReformerCausalLM(backbone=backbone)
    >>> config, weights = keras_reformer.convert.to_huggingface(model)
    >>> weights["lm_head.decoder.weight"].shape
    (11, 16)
    >>> copy = keras_reformer.convert.from_huggingface(config, weights)
    >>> copy(np.ones((1, 50), "int32")).shape
    TensorShape([1, 50, 11])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451), as
    published in trax and in Hugging Face's transformers.
    """
    _check_mapping("config", config, str)
    _check_mapping("weights", weights, str)
    _check_mapping("rotations", rotations or {}, int)
    weights = {
        name: np.asarray(array)
        for name, array in without_wrappers(weights).items()
        if not is_buffer(name)
    }
    weights = _one_bias(weights)
    model = _make_model(config, weights)
    expected = _expected(model, _prefix(weights))
    check_arrays(
        {weight.name: [weight.shape] for weight in expected},
        weights,
        "The weights are not those of the configuration.",
    )
    for weight in expected:
        weight.assign(weights[weight.name])
    set_rotations(_backbone(model), rotations or {})
    return model


def to_huggingface(model):
    """A model's configuration and state dict in the published layout.

    Low-rank adapters are part of the weights that they adapt.

    Args:
        model: what `from_huggingface` returns, or a model like it. What was
            set on its layers since (`num_hashes`) counts.

    Returns:
        config: dict for `config.json`.
        weights: dict of arrays by their names in the state dict, which has
            no place for rotations: `get_rotations` has them.

    Raises:
        ValueError: if the published model has no such variant.
    """
    if type(model) not in _HEADS:
        raise ValueError(
            "The published layout has no place for this model. Expected one "
            f"of {[kind.__name__ for kind in _HEADS]}. Received: "
            f"model={type(model).__name__}"
        )
    if model.get_config().get("tie_embeddings"):
        raise ValueError(
            "The published head has a kernel of its own. Expected "
            "tie_embeddings=False. Received: tie_embeddings=True"
        )
    _check_floats(model)
    backbone = _backbone(model)
    arguments = backbone.get_config() | _settings(backbone)
    config = to_published(arguments) | _head_config(model)
    prefix = _PREFIX if _HEADS[type(model)] else ""
    expected = _expected(model, prefix)
    return config, {weight.name: weight.array() for weight in expected}


def load_huggingface(directory, config=None):
    """The model of a checkpoint's folder.

    Every public Reformer is causal. `config={"is_decoder": False}` makes a
    `ReformerMaskedLM` of one, whose `backbone` suits a classifier too.

    Args:
        directory: path of a folder with `config.json` and `model.safetensors`
            (read by the safetensors package) or `pytorch_model.bin` (read
            without running what it pickles), either of them in one file or
            in shards with an `.index.json`, and perhaps the
            `rotations.safetensors` of `save_huggingface`.
        config: dict of entries that replace those of `config.json`. Defaults
            to `None`.

    Returns:
        What `from_huggingface` returns.

    Raises:
        ValueError: if a file or shard is missing or damaged, or holds what is
            not supported.
    """
    directory = pathlib.Path(directory)
    given = read_json(existing(directory, [_CONFIG])) | (config or {})
    weights = read_weights(directory)
    rotations = _read_rotations(directory / _ROTATIONS)
    return from_huggingface(given, weights, rotations)


def save_huggingface(model, directory):
    """Writes `config.json` and `model.safetensors`, as transformers reads it.

    `rotations.safetensors` beside them is for `load_huggingface`, so that the
    model that it returns hashes as this one.

    Args:
        model: what `to_huggingface` takes.
        directory: path of a folder, which is made.
    """
    from safetensors.numpy import save_file

    config, weights = to_huggingface(model)
    if _LM_BIAS in weights:
        # The name under which transformers adds it, since 5.24.
        weights[_OTHER_LM_BIAS] = weights[_LM_BIAS]
    rotations = get_rotations(model)
    by_name = {str(layer): array for layer, array in rotations.items()}
    with written_together(directory) as new:
        save_file(weights, new / SAFETENSORS, {"format": "pt"})
        save_file(by_name, new / _ROTATIONS)
        (new / _CONFIG).write_text(json.dumps(config, indent=2))


def _check_mapping(name, value, kind):
    fits = isinstance(value, collections.abc.Mapping)
    if not fits or not all(isinstance(key, kind) for key in value):
        shown = f"keys={list(value)[:3]}" if fits else repr(value)
        raise ValueError(
            f"`{name}` must be a dict whose keys are of type "
            f"{kind.__name__}. Received: {name}={shown}"
        )


def _read_rotations(path):
    if not path.is_file():
        return {}
    found = read_file(path)
    with reading(path, "rotations by the numbers of their layers"):
        return {int(layer): array for layer, array in found.items()}


def _one_bias(weights):
    """The head's bias under one name.

    Where a checkpoint holds it twice, the decoder's own is the one that is
    added: transformers 4 makes both one, since 5.24 it never uses the other.
    """
    weights = dict(weights)
    added = weights.pop(_OTHER_LM_BIAS, None)
    if added is None:
        return weights
    other = weights.get(_LM_BIAS, added)
    if not np.array_equal(added, other) and np.any(other):
        warnings.warn(
            "The language model's bias is held twice and differs. Taken: "
            f"{_OTHER_LM_BIAS} {added.shape}, which transformers adds. Not "
            f"used there and here: {_LM_BIAS} {other.shape}",
            stacklevel=3,
        )
    weights[_LM_BIAS] = added
    return weights


def _make_model(config, weights):
    arguments = from_published(config)
    heads = {name.split(".")[0] for name in weights}
    if "lm_head" in heads:
        causal = arguments["causal"]
        return (ReformerCausalLM if causal else ReformerMaskedLM)(**arguments)
    if "qa_outputs" in heads:
        return ReformerQuestionAnswering(**arguments)
    if "classifier" in heads:
        classes = weights.get("classifier.out_proj.weight", np.zeros((1, 1)))
        return ReformerClassifier(
            num_classes=len(classes),
            head_dropout=config.get("classifier_dropout"),
            **arguments,
        )
    return ReformerBackbone(**arguments)


def _expected(model, prefix):
    """The published arrays of a model."""
    heads = _HEADS[type(model)]
    layers = {name: getattr(model, ours) for name, ours in heads.items()}
    return [
        weight._replace(name=_LM_BIAS)
        if weight.name == _OTHER_LM_BIAS
        else weight
        for weight in published_weights(_backbone(model), layers, prefix)
    ]


def _backbone(model):
    return model if isinstance(model, ReformerBackbone) else model.backbone


def _prefix(weights):
    """A state dict of the bare model has no prefix."""
    return _PREFIX if any(n.startswith(_PREFIX) for n in weights) else ""


def _check_floats(model):
    """Raises a `ValueError` if weights are not what they stand for."""
    modes = {
        layer.name: layer.quantization_mode
        for layer in sublayers_of(model)
        if layer.quantization_mode is not None
    }
    if modes:
        raise ValueError(
            "The published layout holds floats. Expected a model that is not "
            "quantized. Received: "
            + ", ".join(f"{name} of {mode}" for name, mode in modes.items())
        )


def _settings(backbone):
    """Arguments that may have been set on the layers since."""
    layers = backbone.lsh_layers().values()
    rounds = {layer.num_hashes for layer in layers}
    exact = {layer.exact_below for layer in layers} - {None}
    exact -= {layer.chunk_length for layer in layers}
    if len(rounds) > 1 or exact:
        raise ValueError(
            "The published model has one number of rounds, and exact "
            "attention up to a chunk's length. Expected equal `num_hashes` "
            "and `exact_below=None` in all layers. Received: "
            f"num_hashes={sorted(rounds)}, exact_below={sorted(exact)}"
        )
    return {"num_hashes": rounds.pop()} if rounds else {}


def _head_config(model):
    """What the configuration says of a model's head."""
    if not isinstance(model, ReformerClassifier):
        return {}
    config = model.get_config()
    return {
        "num_labels": config["num_classes"],
        "classifier_dropout": config["head_dropout"],
    }
