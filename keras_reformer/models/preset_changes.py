"""Arguments that replace those of a model that was saved."""

import dataclasses

from keras_reformer.models.preset_folders import head_weights
from keras_reformer.models.reformer_config import ReformerConfig

# Of every model: of a task as well as of its backbone.
_BASE = ("name", "trainable")
# Arguments that may be left out, and what they follow from then. A config holds
# their values.
_FOLLOWING = {
    "key_dim": ("hidden_dim", "num_heads"),
    "num_key_value_heads": ("num_heads",),
    "cross_num_key_value_heads": ("num_heads", "num_key_value_heads"),
    "axial_shape": ("max_sequence_length",),
    "axial_dims": ("hidden_dim", "axial_shape"),
}


def split_arguments(cls, arguments):
    """Arguments of a class itself, and those of its backbone.

    Args:
        cls: class of a task; or of a backbone, which has no others.
        arguments: dict of both kinds.
    """
    heads = getattr(cls, "_head_defaults", None)
    names = () if heads is None else (*heads, *_BASE)
    own = {name: x for name, x in arguments.items() if name in names}
    return own, {name: x for name, x in arguments.items() if name not in names}


def with_changes(model, changes, keep_weights):
    """A model of the same class, with other arguments.

    Those of the backbone go to both sides of an encoder-decoder, as in its
    constructor, and what followed from them follows from the new ones. A head
    whose weights they change is drawn.

    Args:
        model: a backbone or a task.
        changes: dict of arguments.
        keep_weights: bool. Whether the new model gets the model's weights.

    Raises:
        ValueError: if these do not fit the new backbone.
    """
    if not changes:
        return model
    other = type(model).from_config(_changed_config(model, changes))
    if keep_weights:
        old, new = backbone_of(model), backbone_of(other)
        if _layout(old.weights) != _layout(new.weights):
            raise ValueError(_refusal(model, changes))
        new.set_weights(old.get_weights())
        old, new = head_weights(model), head_weights(other)
        if _layout(old) == _layout(new):
            for variable, value in zip(new, old, strict=True):
                variable.assign(value)
    return other


def backbone_of(model):
    """A task's backbone; a backbone itself."""
    return getattr(model, "backbone", model)


def _layout(weights):
    return [(weight.path, tuple(weight.shape)) for weight in weights]


def _changed_config(model, changes):
    config = model.get_config()
    own, others = split_arguments(type(model), changes)
    config.update(own)
    inner = config["backbone"]["config"] if "backbone" in config else config
    _change(inner, others)
    return config


def _change(config, changes):
    """Makes changes in the config of a backbone."""
    if "encoder" in config:
        _change_encoder(config, changes)
    if "sublayers" in config:
        # What was set on single layers would undo a change for all of them.
        names = set(changes) - {*_BASE, "dtype"}
        config["sublayers"] = {
            path: value
            for path, value in config["sublayers"].items()
            if path.rpartition("/")[2] not in names
        }
    config.update(_left_out(config, changes) | changes)


def _left_out(config, changes):
    """None for each argument that followed from one of those changed."""
    return {
        name: None
        for name, others in _FOLLOWING.items()
        if not {*others}.isdisjoint(changes) and _follows(config, name)
    }


def _follows(config, name):
    """Whether an argument has the value that it gets where it is left out."""
    if name == "cross_num_key_value_heads":
        return config.get(name) == config["num_key_value_heads"]
    fields = [field.name for field in dataclasses.fields(ReformerConfig)]
    # A decoder's config does not say that it is causal.
    values = {"causal": True, **config, name: None}
    resolved = ReformerConfig(**{field: values[field] for field in fields})
    try:
        value = getattr(resolved.resolve(), name)
    except ValueError:
        return False
    return _plain(value) == _plain(config[name])


def _change_encoder(config, changes):
    """Makes the changes of an encoder-decoder's config in its encoder."""
    if "encoder" in changes:
        raise ValueError(
            "A preset's folder holds the encoder's weights too. Expected "
            "changes of its arguments, or a model made of `encoder`, not "
            f"loaded. Received: encoder={changes['encoder']!r}"
        )
    encoder = config["encoder"]["config"]
    names = (set(config) & set(encoder)) - {*_BASE, "sublayers"}
    inside = {name: x for name, x in changes.items() if name in names}
    if inside.get("seed") is not None:
        # As in the constructor, so that both sides draw their own.
        inside["seed"] += 1
    _change(encoder, inside)


def _refusal(model, changes):
    """What is said of changes that give a backbone other weights."""
    held = backbone_of(model).get_config()
    _, others = split_arguments(type(model), changes)
    new = {
        name: value
        for name, value in others.items()
        if _plain(held.get(name)) != _plain(value)
    }
    alone = [name for name in new if _needs_weights(model, name, new[name])]
    names = alone or list(new)
    return (
        "The weights in the preset's folder are those of a model with other "
        f"arguments. Expected {_listed(held, names)}, as the folder holds, "
        "or load_weights=False, which draws weights. Received: "
        f"{_listed(new, names)}"
    )


def _needs_weights(model, name, value):
    """Whether one change, made alone, gives a backbone other weights."""
    try:
        config = _changed_config(model, {name: value})
        other = type(model).from_config(config)
    except ValueError:
        # It goes with another one, which may be the one.
        return True
    weights = [backbone_of(each).weights for each in (model, other)]
    return _layout(weights[0]) != _layout(weights[1])


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _listed(values, names):
    return ", ".join(f"{name}={_plain(values.get(name))!r}" for name in names)
