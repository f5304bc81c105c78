"""The Reformer for Keras: Transformers on very long sequences."""

import typing as _typing
from importlib import import_module as _import_module
from importlib import metadata as _metadata

from keras_reformer import _requirements

_requirements.check()

# ruff: noqa: E402
from keras_reformer.layers import AlibiBias as AlibiBias
from keras_reformer.layers import (
    AxialPositionEmbedding as AxialPositionEmbedding,
)
from keras_reformer.layers import CrossAttention as CrossAttention
from keras_reformer.layers import Dropout as Dropout
from keras_reformer.layers import FeedForward as FeedForward
from keras_reformer.layers import LocalSelfAttention as LocalSelfAttention
from keras_reformer.layers import LSHSelfAttention as LSHSelfAttention
from keras_reformer.layers import MultiHeadAttention as MultiHeadAttention
from keras_reformer.layers import PreNormalization as PreNormalization
from keras_reformer.layers import Recompute as Recompute
from keras_reformer.layers import RelativePositionBias as RelativePositionBias
from keras_reformer.layers import ReversibleBlock as ReversibleBlock
from keras_reformer.layers import ReversibleSequence as ReversibleSequence
from keras_reformer.layers import RotaryEmbedding as RotaryEmbedding
from keras_reformer.layers import SinePositionEncoding as SinePositionEncoding
from keras_reformer.metrics import BitsPerByte as BitsPerByte
from keras_reformer.models import Model as Model
from keras_reformer.models import ReformerBackbone as ReformerBackbone
from keras_reformer.models import ReformerCausalLM as ReformerCausalLM
from keras_reformer.models import ReformerClassifier as ReformerClassifier
from keras_reformer.models import ReformerMaskedLM as ReformerMaskedLM
from keras_reformer.models import (
    ReformerQuestionAnswering as ReformerQuestionAnswering,
)
from keras_reformer.models import ReformerSeq2Seq as ReformerSeq2Seq
from keras_reformer.models import (
    ReformerSeq2SeqBackbone as ReformerSeq2SeqBackbone,
)
from keras_reformer.models import from_preset as from_preset
from keras_reformer.models.preset_methods import (
    set_converter as _set_converter,
)
from keras_reformer.ops.loops.tiling import (
    set_tokens_in_tile as set_tokens_in_tile,
)

if _typing.TYPE_CHECKING:
    from keras_reformer import convert as convert
    from keras_reformer import distribute as distribute
    from keras_reformer import planning as planning
    from keras_reformer.export import export_saved_model as export_saved_model

# The room of models knows no converter, which is made of models.
_set_converter(lambda: _import_module("keras_reformer.convert"))

__version__ = _metadata.version("keras-reformer")

__all__ = [
    "AlibiBias",
    "AxialPositionEmbedding",
    "BitsPerByte",
    "CrossAttention",
    "Dropout",
    "FeedForward",
    "LSHSelfAttention",
    "LocalSelfAttention",
    "Model",
    "MultiHeadAttention",
    "PreNormalization",
    "Recompute",
    "ReformerBackbone",
    "ReformerCausalLM",
    "ReformerClassifier",
    "ReformerMaskedLM",
    "ReformerQuestionAnswering",
    "ReformerSeq2Seq",
    "ReformerSeq2SeqBackbone",
    "RelativePositionBias",
    "ReversibleBlock",
    "ReversibleSequence",
    "RotaryEmbedding",
    "SinePositionEncoding",
    "__version__",
    "convert",
    "distribute",
    "export_saved_model",
    "from_preset",
    "planning",
    "set_tokens_in_tile",
]


def __getattr__(name):
    """Imports what few programs need when it is first asked for."""
    if name in ("convert", "distribute", "export", "planning"):
        return _import_module(f"keras_reformer.{name}")
    if name == "export_saved_model":
        return _import_module("keras_reformer.export").export_saved_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
