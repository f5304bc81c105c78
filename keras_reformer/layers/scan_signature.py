"""Which layers run the same function, so that a loop may scan over them.

In a loop over blocks one block's code runs with every block's values. That is
right only where the blocks are known to be equal. Layers of Keras and of this
package say in their config all that their calls depend on; what is known of
other layers is what can be seen from outside.
"""

import json
from typing import Any

import keras

from keras_reformer.layers.static_state import attributes_of, sublayers_of

_KNOWN_PACKAGES = ("keras", "keras_reformer")
# Serialized values, which are told apart by their config.
_VALUES = ("__bytes__", "__complex__", "__numpy__", "__tensor__", "__tuple__")
# Seeds are in the state of `keras.random.SeedGenerator`, training draws new
# rotations, and the others are about weights and not about calls.
_NO_PART_OF_A_CALL = ("seed", "rotations", "initializer", "constraint")
# What `get_config` raises, or the lack of it.
_NOT_SERIALIZABLE = (
    AttributeError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
)
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


def known_signature(layer, *options):
    """The signature of a call, for layers of Keras and of this package.

    Layers of equal signatures run the same function of inputs and variables.

    Args:
        layer: a built Keras layer.
        *options: hashable arguments of the call.

    Returns:
        A hashable value, or None where equality cannot be known: the layer,
        one inside of it or an object in its config is a user's own. (A
        user's activation is compared by identity.)
    """
    parts = sublayers_of(layer)
    if not all(map(_is_known, parts)):
        return None
    config = _serialized(layer)
    if config is None or not _holds_known_objects(config):
        return None
    text = json.dumps(config, sort_keys=True)
    return text, _kinds(parts), _weights(layer), options


def visible_signature(layer, *options):
    """What can be seen of a call's function, for layers of any kind.

    Classes, weights (shape, dtype, whether they train), activations, the
    configs of layers of Keras and of this package, and of other layers the
    attributes that are numbers, strings or lists of these. Names and seeds
    do not count.

    Args:
        layer: a built Keras layer.
        *options: hashable arguments of the call.

    Returns:
        A hashable value.
    """
    parts = sublayers_of(layer)
    settings = tuple(map(_settings, parts))
    return settings, _kinds(parts), _weights(layer), options


def describe_difference(layer, other):
    """In which respect two layers differ visibly, for an error message."""
    ours, theirs = visible_signature(layer), visible_signature(other)
    # Other classes or weights bring other settings.
    for index, name in ((1, "classes"), (2, "weights")):
        if ours[index] != theirs[index]:
            return f"{name} {_shown(ours[index])} and {_shown(theirs[index])}"
    pairs = zip(ours[0], theirs[0], strict=True)
    found = [sorted(set(one) ^ set(two)) for one, two in pairs]
    return f"settings {', '.join(f'{k}={v}' for k, v in sum(found, []))}"


def _shown(aspect):
    shown = [
        part[0].__name__ if isinstance(part[0], type) else str(part[0])
        for part in aspect
    ]
    return f"[{', '.join(shown)}]"


def _is_known(layer):
    package = type(layer).__module__.partition(".")[0]
    # A method of the instance's own is in no config.
    return package in _KNOWN_PACKAGES and "call" not in vars(layer)


def _call_config(config) -> Any:
    """The part of a config that calls depend on."""
    if isinstance(config, dict):
        # What else has a name, such as a dtype policy, is what it is called.
        is_layer = "trainable" in config
        return {
            key: _call_config(value)
            for key, value in config.items()
            if not key.endswith(_NO_PART_OF_A_CALL)
            and not (key.endswith("_regularizer") and not _is_activity(key))
            and not (is_layer and key == "name")
        }
    if isinstance(config, (list, tuple)):
        return [_call_config(value) for value in config]
    return config


def _is_activity(key):
    return key == "activity_regularizer"


def _holds_known_objects(config, key=None):
    """Whether all serialized objects are Keras's or this package's."""
    if isinstance(config, (list, tuple)):
        return all(_holds_known_objects(value) for value in config)
    if not isinstance(config, dict):
        return True
    if key == "activation":
        # Compared by identity.
        return True
    if "class_name" in config:
        package = (config.get("module") or "").partition(".")[0]
        is_value = config["class_name"] in _VALUES
        if not is_value and package not in _KNOWN_PACKAGES:
            return False
    return all(_holds_known_objects(v, k) for k, v in config.items())


def _kinds(parts):
    """Classes and activations, which a config holds by their names alone."""
    return tuple(
        (type(part), getattr(part, "activation", None)) for part in parts
    )


def _weights(layer):
    return tuple(
        (tuple(v.shape), keras.backend.standardize_dtype(v.dtype), v.trainable)
        for v in layer.variables
    )


def _settings(layer):
    """A layer's settings that can be seen, as pairs of name and text."""
    is_known = all(map(_is_known, sublayers_of(layer)))
    config = _serialized(layer) if is_known else None
    if config is not None:
        settings = config["config"]
    else:
        settings = {
            name: value
            for name, value in attributes_of(layer).items()
            if _is_plain(value) and not name.endswith(("name", "seed"))
        }
    return tuple(sorted((name, repr(x)) for name, x in settings.items()))


def _serialized(layer) -> Any:
    """What a layer's calls depend on of its config, or None without one."""
    try:
        config = _call_config(keras.saving.serialize_keras_object(layer))
        json.dumps(config)
    except _NOT_SERIALIZABLE:
        # It holds an object of the user's. It can still be trained.
        return None
    return config


def _is_plain(value):
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _SCALARS)
