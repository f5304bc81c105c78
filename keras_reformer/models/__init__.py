"""Functional models made of the layers."""

from keras_reformer.models.reformer_backbone import (
    ReformerBackbone as ReformerBackbone,
)
from keras_reformer.models.reformer_causal_lm import (
    ReformerCausalLM as ReformerCausalLM,
)

__all__ = ["ReformerBackbone", "ReformerCausalLM"]
