"""Models that are quick to trace and to export."""

import numpy as np

from keras_reformer import models

VOCABULARY, LENGTH = 11, 64
SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": LENGTH,
    "chunk_length": 8,
    "seed": 0,
}
# What is exported, loaded and run in full.
ONE_BLOCK = {"num_layers": 1, "attention_layers": "lsh"}
IDS = np.random.default_rng(5).integers(VOCABULARY, size=(2, 37), dtype="int32")
LENGTHS = np.array([37, 23], "int32")
MASK = np.arange(37) < LENGTHS[:, None]


def causal_lm(**arguments):
    return models.ReformerCausalLM(**{**SIZES, **arguments})


def masked_lm(**arguments):
    return models.ReformerMaskedLM(**{**SIZES, **arguments})


def classifier(**arguments):
    return models.ReformerClassifier(num_classes=3, **{**SIZES, **arguments})
