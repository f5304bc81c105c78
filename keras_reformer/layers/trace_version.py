"""A version of what traces of layers hold fixed."""

import itertools

from keras_reformer.layers.static_state import StaticState

_versions = itertools.count(1)


class TraceVersion:
    """Tells whoever keeps traces of a layer when they no longer hold.

    A trace may answer as long as the version is the one that it was made at.
    The version changes with whatever a trace takes for constant: settings of
    layers (also those that Keras's own have, which tell nobody), sublayers,
    the set of variables (`enable_lora`, `quantize`, weights that were loaded
    into another structure). It stays where only values of variables change.

    Layers are compared with what they were when they were last asked about
    (`StaticState`), and what they were is kept: an object that is gone cannot
    leave its address to another one that would pass for it.

    Example:

    >>> from keras_reformer.layers.trace_version import TraceVersion
    >>> version = TraceVersion()
    >>> layer = keras_reformer.FeedForward(8)
    >>> before = version.of(layer)
    >>> version.of(layer) == before
    True
    >>> layer.activation = keras.activations.relu
    >>> version.of(layer) == before
    False
    """

    def __init__(self):
        self._state = None
        self._version = 0

    def of(self, layer) -> int:
        """The layer's version, which no other state or layer ever has.

        Args:
            layer: Keras layer or model, the same one at each call.
        """
        state = StaticState(layer)
        if state != self._state:
            self._state, self._version = state, next(_versions)
        return self._version
