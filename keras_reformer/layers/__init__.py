"""Keras layers: variables, masks, dtypes and config around `ops`."""

from keras_reformer.layers.alibi_bias import AlibiBias as AlibiBias
from keras_reformer.layers.axial_position_embedding import (
    AxialPositionEmbedding as AxialPositionEmbedding,
)
from keras_reformer.layers.cross_attention import (
    CrossAttention as CrossAttention,
)
from keras_reformer.layers.dropout import Dropout as Dropout
from keras_reformer.layers.feed_forward import FeedForward as FeedForward
from keras_reformer.layers.local_self_attention import (
    LocalSelfAttention as LocalSelfAttention,
)
from keras_reformer.layers.lsh_self_attention import (
    LSHSelfAttention as LSHSelfAttention,
)
from keras_reformer.layers.multi_head_attention import (
    MultiHeadAttention as MultiHeadAttention,
)
from keras_reformer.layers.pre_normalization import (
    PreNormalization as PreNormalization,
)
from keras_reformer.layers.recompute import Recompute as Recompute
from keras_reformer.layers.relative_position_bias import (
    RelativePositionBias as RelativePositionBias,
)
from keras_reformer.layers.reversible_block import (
    ReversibleBlock as ReversibleBlock,
)
from keras_reformer.layers.reversible_sequence import (
    ReversibleSequence as ReversibleSequence,
)
from keras_reformer.layers.rotary_embedding import (
    RotaryEmbedding as RotaryEmbedding,
)
from keras_reformer.layers.sine_position_encoding import (
    SinePositionEncoding as SinePositionEncoding,
)

__all__ = [
    "AlibiBias",
    "AxialPositionEmbedding",
    "CrossAttention",
    "Dropout",
    "FeedForward",
    "LSHSelfAttention",
    "LocalSelfAttention",
    "MultiHeadAttention",
    "PreNormalization",
    "Recompute",
    "RelativePositionBias",
    "ReversibleBlock",
    "ReversibleSequence",
    "RotaryEmbedding",
    "SinePositionEncoding",
]
