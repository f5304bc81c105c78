"""Metrics of language models."""

import math

import keras


@keras.saving.register_keras_serializable(package="keras_reformer")
class BitsPerByte(keras.metrics.Mean):
    """Mean cross-entropy in bits: what a model needs to encode a byte.

    A byte-level model's bits per token, comparable with the size of a
    compressed file. Weights are respected: padding should have weight zero.

    Args:
        name: string. Defaults to `"bits_per_byte"`.
        dtype: dtype of the metric. Defaults to float32.

    Call arguments:
        y_true: Integer tensor of shape `(batch, length)`.
        y_pred: Logits of shape `(batch, length, vocabulary_size)`.
        sample_weight: Tensor of shape `(batch, length)` or None.

    Example:

    >>> metric = keras_reformer.BitsPerByte()
    >>> metric.update_state([[0, 1]], [[[0.0, 0.0], [0.0, 0.0]]])
    >>> float(metric.result())
    1.0
    """

    def __init__(self, name="bits_per_byte", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        nats = keras.ops.sparse_categorical_crossentropy(
            y_true, keras.ops.cast(y_pred, "float32"), from_logits=True
        )
        self.update_from_nats(nats, sample_weight)

    def update_from_nats(self, nats, sample_weight=None):
        """Updates the metric where the cross-entropy is known already.

        Args:
            nats: Float tensor `(batch, length)`: `-log p` of the labels.
            sample_weight: Tensor of shape `(batch, length)` or None.
        """
        super().update_state(nats / math.log(2.0), sample_weight)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}
