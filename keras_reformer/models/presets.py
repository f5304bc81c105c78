"""Configurations by name, each with its source.

What is published of a model is here under the names of `ReformerBackbone`'s
arguments: how it attends too (`scope="chunk"`, `wrap=True`), so that
published weights fit. Arguments that a preset leaves out have their defaults.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras


class Preset(NamedTuple):
    """A configuration.

    Attributes:
        model: str. The class that `keras_reformer.from_preset` makes.
        backbone: str. The class whose arguments these are.
        arguments: mapping of them by name.
        source: str. Where the numbers are from.
    """

    model: str
    backbone: str
    arguments: Mapping[str, Any]
    source: str

    def is_for(self, cls) -> bool:
        """Whether a model class, or its backbone's, takes the arguments."""
        taken = getattr(cls, "_backbone_class", cls)
        return issubclass(taken, registered(self.backbone))


def registered(name):
    """The class of this package that has a name."""
    return keras.saving.get_registered_object(f"keras_reformer>{name}")


def presets_for(cls) -> dict[str, Preset]:
    """The presets that a model class can be made from, by name."""
    return {name: each for name, each in PRESETS.items() if each.is_for(cls)}


_LM, _BACKBONE = "ReformerCausalLM", "ReformerBackbone"
_PUBLISHED = {"scope": "chunk", "wrap": True}
PRESETS = {
    "tiny": Preset(
        _LM,
        _BACKBONE,
        {
            "vocabulary_size": 258,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 32,
            "intermediate_dim": 64,
            "max_sequence_length": 1024,
            "chunk_length": 32,
            "num_hashes": 2,
        },
        "This library's defaults in the smallest sizes, to try code with.",
    ),
    "enwik8_64k": Preset(
        _LM,
        _BACKBONE,
        {
            **_PUBLISHED,
            "vocabulary_size": 258,
            "num_layers": 12,
            "num_heads": 8,
            "key_dim": 128,
            "hidden_dim": 1024,
            "intermediate_dim": 4096,
            "max_sequence_length": 65536,
            "attention_layers": ("local", "local", "lsh", "local"),
            "num_hashes": 4,
            "num_buckets": 512,
            "chunk_length": 256,
            "local_chunk_length": 128,
            "axial_shape": (128, 512),
            "axial_dims": (256, 768),
            "activation": "relu",
            "epsilon": 1e-12,
            "dropout": 0.2,
            "lsh_dropout": 0.1,
            "local_dropout": 0.2,
        },
        "config.json of google/reformer-enwik8 on the Hugging Face hub, whose "
        "weights fit; also in PaddlePaddle/PaddleNLP, paddlenlp/transformers/"
        "reformer/configuration.py. It is the larger of the two models of "
        "google/trax, trax/supervised/configs/reformer_enwik8.gin, which "
        "trains with 2 rounds: Adam(0.9, 0.98, 1e-9), a rate of 0.03125 * "
        "min(1, step / 2000) / sqrt(max(step, 2000)), 100,000 steps. Tokens "
        "are bytes, as in `keras_reformer.data.ByteTokenizer`.",
    ),
    "imagenet64": Preset(
        _LM,
        _BACKBONE,
        {
            **_PUBLISHED,
            "vocabulary_size": 256,
            "num_layers": 6,
            "num_heads": 8,
            "key_dim": 64,
            "hidden_dim": 1024,
            "intermediate_dim": 4096,
            "max_sequence_length": 12288,
            "attention_layers": ("lsh",),
            "num_hashes": 2,
            "num_buckets": 192,
            "chunk_length": 128,
            "axial_shape": (64, 64, 3),
            "axial_dims": (384, 384, 256),
            "activation": "gelu",
            "dropout": 0.0,
            "lsh_dropout": 0.2,
        },
        "google/trax, trax/supervised/configs/reformer_imagenet64.gin, which "
        "has tanh's approximation of gelu: Adam(0.9, 0.98, 1e-9), a rate of "
        "0.03125 * min(1, step / 8000) / sqrt(max(step, 8000)), 500,000 steps. "
        "Tokens are the bytes of 64 rows of 64 pixels of three colours.",
    ),
    "crime_and_punishment": Preset(
        _LM,
        _BACKBONE,
        {
            **_PUBLISHED,
            "vocabulary_size": 320,
            "num_layers": 6,
            "num_heads": 2,
            "key_dim": 64,
            "hidden_dim": 256,
            "intermediate_dim": 512,
            "max_sequence_length": 524288,
            "attention_layers": ("local", "lsh"),
            "num_hashes": 1,
            "num_buckets": (64, 128),
            "chunk_length": 64,
            "axial_shape": (512, 1024),
            "axial_dims": (64, 192),
            "activation": "relu",
            "epsilon": 1e-12,
            "dropout": 0.05,
            "lsh_dropout": 0.0,
            "local_dropout": 0.05,
        },
        "config.json of google/reformer-crime-and-punishment on the Hugging "
        "Face hub, whose weights fit; also in PaddlePaddle/PaddleNLP, "
        "paddlenlp/transformers/reformer/configuration.py. It was trained by "
        "google/trax, trax/models/reformer/text_generation.ipynb. Tokens are "
        "those of a SentencePiece vocabulary.",
    ),
    "wmt_en_de": Preset(
        "ReformerSeq2Seq",
        "ReformerSeq2SeqBackbone",
        {
            "vocabulary_size": 33300,
            "num_layers": 6,
            "num_heads": 8,
            "hidden_dim": 512,
            "intermediate_dim": 2048,
            "max_sequence_length": 2048,
            # Of two chunks all tokens see each other: this is exact
            # attention for up to 512, all that is trained and evaluated on.
            "attention_layers": ("local",),
            "chunk_length": 256,
            "position_embedding": "learned",
            "activation": "relu",
            "dropout": 0.1,
        },
        "google/trax, trax/supervised/configs/reformer_wmt_ende.gin: "
        "Adam(0.9, 0.98, 1e-9), a rate of 0.088 * min(1, step / 8000) / "
        "sqrt(step), 500,000 steps.",
    ),
}
