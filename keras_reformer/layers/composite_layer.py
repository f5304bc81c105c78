import keras

from keras_reformer.layers.rematerialization import RefusesRematerialization
from keras_reformer.layers.sublayers import (
    Sublayers,
    deserialize,
    serialize,
    sharing,
)


class CompositeLayer(RefusesRematerialization, keras.layers.Layer):
    """Base of the layers made of other layers.

    Args:
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name` and `dtype`.
    """

    # Arguments that are a layer, a list of layers or None.
    _layer_arguments: tuple[str, ...] = ()

    def __init__(self, sublayers=None, **kwargs):
        super().__init__(**kwargs)
        self._sublayers = Sublayers(sublayers)

    def _make_sublayer(self, name, layer):
        """Makes an attribute of a layer that is not yet built."""
        layer = self._sublayers.make(name, layer, self.trainable)
        setattr(self, name, layer)
        return layer

    def get_config(self):
        config = super().get_config()
        for name in self._layer_arguments:
            config[name] = serialize(getattr(self, name))
        changes = self._sublayers.changes(self.trainable)
        return {**config, "sublayers": changes} if changes else config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        with sharing():
            for name in cls._layer_arguments:
                config[name] = deserialize(config.get(name))
        return cls(**config)
