"""Published checkpoints to models, and back."""

from keras_reformer.convert.huggingface import (
    from_huggingface as from_huggingface,
)
from keras_reformer.convert.huggingface import (
    load_huggingface as load_huggingface,
)
from keras_reformer.convert.huggingface import (
    save_huggingface as save_huggingface,
)
from keras_reformer.convert.huggingface import to_huggingface as to_huggingface
from keras_reformer.convert.trax import load_trax as load_trax

__all__ = [
    "from_huggingface",
    "load_huggingface",
    "load_trax",
    "save_huggingface",
    "to_huggingface",
]
