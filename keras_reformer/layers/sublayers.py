"""Configs of layers that are made of other layers.

The config of a composite layer holds the options that it makes sublayers
from. Settings changed later on one sublayer are not among them: `trainable`,
the dtype policy after quantization, the number of hash rounds. `Sublayers`
adds these changes to the config. `serialize` and `deserialize` are for
layers that were arguments: a config holds theirs whole, and one layer at
several places is restored as one.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import keras

# At how many places each layer is an argument.
_places: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_loading = threading.local()


class Sublayers:
    """The sublayers that a layer makes from its options, and their changes.

    Not a dict, in which Keras would track the layers a second time.

    Args:
        changes: dict that `changes` returned, to restore the same settings.
            Entries of layers that do not exist are ignored: the options may
            have been edited.
    """

    def __init__(self, changes: dict[str, Any] | None = None):
        if not isinstance(changes, (dict, type(None))):
            raise ValueError(
                "Received an invalid value for argument `sublayers`, expected "
                "a dict of settings by their path, as `get_config` returns "
                f"it, or None. Received: sublayers={changes!r}"
            )
        self._given = dict(changes or {})
        self._made: dict[str, tuple[keras.Layer, dict[str, Any]]] = {}

    def make(
        self, name: str, layer: keras.Layer, trainable: bool = True
    ) -> keras.Layer:
        """Applies the stored changes of this name to a new sublayer.

        Args:
            name: the owner's name of the layer.
            layer: made from the options, not yet built.
            trainable: whether the owner is trainable.

        Returns:
            The layer, or a new one made from its changed config.
        """
        if not trainable:
            layer.trainable = False
        config = without_marks(layer.get_config())
        made = dict(_settings(config, name))
        changes = {p: v for p, v in self._given.items() if _first(p) == name}
        if changes:
            for path, value in changes.items():
                _change(config, path.partition("/")[2], value)
            supports_masking = layer.supports_masking
            # A layer that holds a reference to another one keeps it.
            remade = getattr(layer, "remade", type(layer).from_config)
            layer = remade(config)
            layer.supports_masking = supports_masking
        self._made[name] = layer, made
        return layer

    def make_all(
        self, layers: dict[str, keras.Layer | None], trainable: bool
    ) -> dict[str, keras.Layer | None]:
        """Applies `make` to a dict of layers, where None stays None."""
        return {
            name: None if layer is None else self.make(name, layer, trainable)
            for name, layer in layers.items()
        }

    def changes(self, trainable: bool = True) -> dict[str, Any]:
        """Settings that differ from those the options imply, by path.

        Args:
            trainable: whether the owner is trainable.
        """
        found = {
            path: value
            for path, value in self._given.items()
            if _first(path) not in self._made
        }
        for name, (layer, made) in self._made.items():
            config = without_marks(layer.get_config())
            for path, value in _settings(config, name):
                is_flag = path.endswith("/trainable")
                options = trainable if is_flag else made.get(path, _MISSING)
                if value != options:
                    found[path] = value
        return found


def adopt(layer: keras.Layer | None) -> Any:
    """Counts one more place of a layer that is an argument; returns it."""
    if layer is not None:
        _places[layer] = _places.get(layer, 0) + 1
    return layer


def serialize(layers):
    """Serializes a layer that is an argument, a list of them, or None."""
    if isinstance(layers, (list, tuple)):
        return [serialize(layer) for layer in layers]
    config = keras.saving.serialize_keras_object(layers)
    if layers is not None and _places.get(layers, 0) > 1:
        # Nested configs lose the `shared_object_id` that Keras writes.
        config["shared_object_id"] = id(layers)
    return config


def deserialize(config, custom_objects=None):
    """Restores what `serialize` returned."""
    if isinstance(config, (list, tuple)):
        return [deserialize(each, custom_objects) for each in config]
    with sharing() as known:
        shared = None if config is None else config.get("shared_object_id")
        if shared in known:
            return known[shared]
        layer = keras.saving.deserialize_keras_object(config, custom_objects)
        if shared is not None:
            known[shared] = layer
        return layer


@contextlib.contextmanager
def sharing() -> Iterator[dict[int, keras.Layer]]:
    """Scope in which a layer that several configs hold is made once."""
    outer = getattr(_loading, "layers", None)
    _loading.layers = {} if outer is None else outer
    try:
        yield _loading.layers
    finally:
        _loading.layers = outer


def without_marks(config):
    """A copy of a config without `shared_object_id`.

    The ids are addresses, which are used again once an object is freed.
    """
    if isinstance(config, dict):
        return {
            key: without_marks(value)
            for key, value in config.items()
            if key != "shared_object_id"
        }
    if isinstance(config, (list, tuple)):
        return [without_marks(value) for value in config]
    return config


_MISSING = object()


def _first(path):
    return path.partition("/")[0]


def _settings(config, path):
    """Yields path and value of each setting of a layer and its sublayers."""
    for key, value in config.items():
        inside = _layer_configs(value)
        for config in inside:
            yield from _settings(config, f"{path}/{config['name']}")
        if key == "sublayers":
            yield from ((f"{path}/{p}", v) for p, v in value.items())
        elif not inside:
            yield f"{path}/{key}", value


def _change(config, path, value):
    """Sets the value at a path in a layer's config, in place."""
    name, _, rest = path.partition("/")
    if not rest:
        config[name] = value
        return
    for entry in config.values():
        for inside in _layer_configs(entry):
            if inside["name"] == name:
                _change(inside, rest, value)
                return
    config.setdefault("sublayers", {})[path] = value


def _layer_configs(value):
    """The configs of serialized layers in a config's value."""
    values = value if isinstance(value, list) else [value]
    configs = [x.get("config") for x in values if isinstance(x, dict)]
    return [
        config
        for config in configs
        if isinstance(config, dict) and {"name", "trainable"} <= set(config)
    ]
