"""Reading pickles without running what they ask for.

A pickle is a program: it may call any function it names. Here it may call
what a reader lists, and any other name is an error.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows a few names only.

    Args:
        file: binary file.
        allowed: by `(module, name)` what the name stands for.
        load_storage: what to make of the pickle's references to data outside
            of it, or None where there must be none.
    """

    def __init__(
        self,
        file,
        allowed: Mapping[tuple[str, str], Any],
        load_storage: Callable | None = None,
    ):
        super().__init__(file)
        self._allowed = allowed
        self._load_storage = load_storage

    def find_class(self, module, name):
        try:
            return self._allowed[module, name]
        except KeyError:
            raise ValueError(
                "A checkpoint may hold arrays and containers only; the file "
                "asks for something else, which is not run. Expected a file "
                f"of arrays. Received: {module}.{name}"
            ) from None

    def persistent_load(self, pid):
        if self._load_storage is None:
            raise ValueError(
                "The file refers to data outside of it. Expected a file of "
                f"arrays. Received: {pid!r}"
            )
        return self._load_storage(pid)
