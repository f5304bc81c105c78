"""Functional models made of the layers."""

from keras_reformer.models.from_preset import from_preset as from_preset
from keras_reformer.models.functional_model import Model as Model
from keras_reformer.models.reformer_backbone import (
    ReformerBackbone as ReformerBackbone,
)
from keras_reformer.models.reformer_causal_lm import (
    ReformerCausalLM as ReformerCausalLM,
)
from keras_reformer.models.reformer_classifier import (
    ReformerClassifier as ReformerClassifier,
)
from keras_reformer.models.reformer_masked_lm import (
    ReformerMaskedLM as ReformerMaskedLM,
)
from keras_reformer.models.reformer_question_answering import (
    ReformerQuestionAnswering as ReformerQuestionAnswering,
)
from keras_reformer.models.reformer_seq2seq import (
    ReformerSeq2Seq as ReformerSeq2Seq,
)
from keras_reformer.models.reformer_seq2seq_backbone import (
    ReformerSeq2SeqBackbone as ReformerSeq2SeqBackbone,
)
from keras_reformer.models.workers import (
    multi_worker_strategy as multi_worker_strategy,
)

__all__ = [
    "Model",
    "ReformerBackbone",
    "ReformerCausalLM",
    "ReformerClassifier",
    "ReformerMaskedLM",
    "ReformerQuestionAnswering",
    "ReformerSeq2Seq",
    "ReformerSeq2SeqBackbone",
    "from_preset",
    "multi_worker_strategy",
]
