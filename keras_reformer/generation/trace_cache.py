"""The latest traces of a model, for as long as they hold."""

from keras_reformer.layers.static_state import StaticState

# A server that makes a sampler for each request must not fill memory.
_LATEST = 8


class TraceCache:
    """Traced functions of a model, by the options that they were made for.

    All are dropped when the model's version changes, and of those with
    different options all but the latest.
    """

    def __init__(self):
        self._version = None
        self._entries = []

    def __len__(self):
        return len(self._entries)

    def get(self, version, options, make):
        """The result of `make` for equal options at this version.

        Args:
            version: int. The model's `trace_version`.
            options: list of what else the traces depend on, compared as
                `StaticState` does.
            make: makes traced functions, without arguments.
        """
        options = StaticState(options)
        if version != self._version:
            self._version, self._entries = version, []
        entry = next((e for e in self._entries if e[0] == options), None)
        entry = entry or (options, make())
        others = [e for e in self._entries if e is not entry]
        self._entries = [entry, *others][:_LATEST]
        return entry[1]
