"""Published checkpoints to models, and back.

Example:

>>> backbone = keras_reformer.ReformerBackbone(
...     vocabulary_size=11, num_layers=1, num_heads=2, hidden_dim=8,
...     intermediate_dim=16, max_sequence_length=64, scope="chunk",
...     wrap=True, activation="relu",
... )
>>> config, weights = keras_reformer.convert.to_huggingface(backbone)
>>> config["attn_layers"], weights["encoder.layer_norm.weight"].shape
(['local'], (16,))
"""

from keras_reformer.convert.attention import (
    from_multi_head_attention as from_multi_head_attention,
)
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
from keras_reformer.convert.rotations import get_rotations as get_rotations
from keras_reformer.convert.trax import load_trax as load_trax

__all__ = [
    "from_huggingface",
    "from_multi_head_attention",
    "get_rotations",
    "load_huggingface",
    "load_trax",
    "save_huggingface",
    "to_huggingface",
]
