"""What belongs to a single layer, in the config of a layer made of layers.

A layer that makes others from its own options has a config of these options,
which do not say what was set on one of the others since: whether it trains,
its dtype policy after quantization, its number of hash rounds. `Sublayers`
keeps the differences. `serialize` and `deserialize` are for layers that were
given: a config holds these whole, and one layer in several places stays one.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import keras

# How many places each layer was given to.
_places: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_loading = threading.local()


class Sublayers:
    """The layers that another one makes from its options.

    Not a dict, whose layers Keras would track in a second place.

    Args:
        changes: dict that `changes` returned, to make the same layers again.
            What is of no layer here does nothing: options may be changed.
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
        """Returns a layer with what was changed on the one of this name.

        Args:
            name: what the owner calls the layer.
            layer: not yet built, as the options make it.
            trainable: whether the owner trains.
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
            # A layer that refers to another one is made of it again.
            remade = getattr(layer, "remade", type(layer).from_config)
            layer = remade(config)
            layer.supports_masking = supports_masking
        self._made[name] = layer, made
        return layer

    def make_all(
        self, layers: dict[str, keras.Layer | None], trainable: bool
    ) -> dict[str, keras.Layer | None]:
        """`make` for layers by name, of which some may be None."""
        return {
            name: None if layer is None else self.make(name, layer, trainable)
            for name, layer in layers.items()
        }

    def changes(self, trainable: bool = True) -> dict[str, Any]:
        """By path, settings that are not what the options make.

        Args:
            trainable: whether the owner trains.
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


def adopt(layer: keras.Layer | None) -> keras.Layer | None:
    """Counts a place that a layer is given to; returns the layer."""
    if layer is not None:
        _places[layer] = _places.get(layer, 0) + 1
    return layer


def serialize(layers):
    """The config of a layer that was given, of a list of them, or None."""
    if isinstance(layers, (list, tuple)):
        return [serialize(layer) for layer in layers]
    config = keras.saving.serialize_keras_object(layers)
    if layers is not None and _places.get(layers, 0) > 1:
        # Keras's own mark of a shared object gets lost in nested configs.
        config["shared_object_id"] = id(layers)
    return config


def deserialize(config, custom_objects=None):
    """The layer of what `serialize` returned."""
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
    """Within the outermost, a layer in several configs is made once."""
    outer = getattr(_loading, "layers", None)
    _loading.layers = {} if outer is None else outer
    try:
        yield _loading.layers
    finally:
        _loading.layers = outer


def without_marks(config):
    """A copy of a config without Keras's marks of objects seen before.

    They are addresses, which an object that is gone leaves to another one.
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
    """Yields path and value of the settings of a layer and all inside."""
    for key, value in config.items():
        inside = _layer_configs(value)
        for config in inside:
            yield from _settings(config, f"{path}/{config['name']}")
        if key == "sublayers":
            yield from ((f"{path}/{p}", v) for p, v in value.items())
        elif not inside:
            yield f"{path}/{key}", value


def _change(config, path, value):
    """Sets one of the settings of a layer and all inside."""
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
    """Of the value in a config: the configs of serialized layers."""
    values = value if isinstance(value, list) else [value]
    configs = [x.get("config") for x in values if isinstance(x, dict)]
    return [
        config
        for config in configs
        if isinstance(config, dict) and {"name", "trainable"} <= set(config)
    ]
