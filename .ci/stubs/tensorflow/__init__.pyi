"""TensorFlow as pyright sees it: of unknown types.

It ships none itself. The stubs that pyright brings are those of an older
version, without much of what is used here: `tensor[..., None]`, `~tensor`,
unknown shapes.
"""

from typing import Any

def __getattr__(name: str) -> Any: ...
