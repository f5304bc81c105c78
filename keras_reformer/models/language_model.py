"""What the models share that predict tokens."""

import keras

from keras_reformer.models.headed_model import HeadedModel, logits
from keras_reformer.models.training import ChunkedCrossEntropy


class LanguageModel(ChunkedCrossEntropy, HeadedModel):
    """A dense layer over the vocabulary, and a loss in chunks."""

    def _make_head(self, backbone):
        return {
            "head": keras.layers.Dense(
                backbone.vocabulary_size,
                dtype=backbone.dtype_policy,
                name="head",
            )
        }

    def _connect(self, head, hidden):
        dense = head["head"]
        return logits(dense(hidden), dense.dtype_policy)
