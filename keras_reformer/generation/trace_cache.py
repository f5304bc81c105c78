"""The latest traces of layers, for as long as they hold."""

from keras_reformer.layers.static_state import StaticState

# A server that makes a sampler for each request must not fill memory.
_LATEST = 8


class TraceCache:
    """Traced functions of layers, by the options that they were made for.

    All are dropped when the layers' settings, sublayers or set of variables
    change, and of those with different options all but the latest.
    """

    def __init__(self):
        self._layers = None
        self._entries = []

    def __len__(self):
        return len(self._entries)

    def get(self, layers, options, make):
        """What `make` returned for equal options and layers.

        Args:
            layers: Keras layer that is traced.
            options: list of what else the traces depend on, compared as
                `StaticState` does.
            make: makes traced functions, without arguments.
        """
        layers, options = StaticState(layers), StaticState(options)
        if layers != self._layers:
            self._layers, self._entries = layers, []
        entry = next((e for e in self._entries if e[0] == options), None)
        entry = entry or (options, make())
        others = [e for e in self._entries if e is not entry]
        self._entries = [entry, *others][:_LATEST]
        return entry[1]
