"""The base of tasks that predict tokens."""

import keras

from keras_reformer.layers import checks
from keras_reformer.models.task import Task, logits_layer
from keras_reformer.models.training import ChunkedCrossEntropy


class LanguageModel(ChunkedCrossEntropy, Task):
    """A task with logits over the vocabulary and a loss in chunks.

    With `tie_embeddings` the layer's kernel is the table of the token
    embeddings.
    """

    _head_defaults = {"tie_embeddings": False}

    def _make_head(self, backbone, tie_embeddings):
        tie_embeddings = checks.boolean("tie_embeddings", tie_embeddings)
        make = _tied_head if tie_embeddings else _dense_head
        return {
            "head": make(backbone),
            "logits": logits_layer(backbone.dtype_policy),
        }

    def _connect(self, head, hidden, **options):
        return head["logits"](head["head"](hidden))


def _dense_head(backbone):
    return keras.layers.Dense(
        backbone.vocabulary_size, dtype=backbone.dtype_policy, name="head"
    )


def _tied_head(backbone):
    width = backbone.output_shape[-1]
    embedding = backbone.token_embedding
    if width != embedding.output_dim:
        raise ValueError(
            "Tied embeddings must be as wide as the backbone's outputs. "
            "Expected a backbone with merge='mean'. Received: "
            f"tie_embeddings=True, outputs of width {width} and embeddings of "
            f"width {embedding.output_dim}"
        )
    return TiedHead(embedding, dtype=backbone.dtype_policy, name="head")


class TiedHead(keras.layers.Layer):
    """Logits by the table of an embedding.

    Embeddings have unit variance here, so the inputs are scaled by
    `1 / sqrt(dim)`, as in T5 (Raffel et al. 2020).
    """

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.embedding = embedding

    def call(self, inputs):
        scaled = inputs * self.embedding.output_dim**-0.5
        return self.embedding(scaled, reverse=True)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.embedding.input_dim)

    def get_config(self):
        # Without the embedding: the model makes its head.
        return {**super().get_config()}

    def remade(self, config):
        """A head of the same embedding, with another config."""
        return type(self)(self.embedding, **config)

    @classmethod
    def from_config(cls, config):
        raise ValueError(
            "A head that is tied to the token embeddings cannot be copied or "
            "saved without them, as `clone_model` and Functional models made "
            "of a model's inner layers would. Copy the model with "
            "`from_config(model.get_config())`, or call it in the Functional "
            f"model: `model(inputs)`. Received: layer={config['name']}"
        )
