"""Padding to whole chunks of every layer, as the published model pads."""

import math

import keras

from keras_reformer.ops.loops.shapes import pad_to_multiple


def published_multiple(config):
    """The multiple that the published model pads lengths to.

    Layers pad to their own chunks. With `wrap=True` the amount of padding
    changes outputs: the published model pads to a common multiple of all
    chunk lengths, unless the inputs fit into the smallest chunk, where
    attention is exact.

    Args:
        config: `ReformerConfig`.

    Returns:
        multiple: int, or None if the layers' own padding suffices.
        above: int. Inputs of at most this length are not padded.
    """
    lengths = {
        config.chunk_length if kind == "lsh" else config.local_chunk_length
        for kind in config.attention_layers
    }
    if not config.wrap or len(lengths) == 1:
        return None, 0
    return math.lcm(*lengths), min(lengths)


@keras.saving.register_keras_serializable(package="keras_reformer")
class PadToMultiple(keras.layers.Layer):
    """Pads sequences at the end to a multiple of a length.

    Args:
        multiple: int. The padded length is a multiple of it.
        above: int. Sequences of at most this length are not padded.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, dim)`.
        padding_mask: Boolean tensor `(batch, length)`, or None.

    Returns:
        Both, padded with zeros and with False.
    """

    def __init__(self, multiple, above=0, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.multiple = multiple
        self.above = above

    def compute_mask(self, inputs, previous_mask):
        """None: the mask is an output."""
        return None

    def call(self, inputs, padding_mask=None):
        return pad_to_multiple(inputs, padding_mask, self.multiple, self.above)

    def compute_output_spec(self, inputs, padding_mask=None):
        batch, length, dim = inputs.shape
        if length is not None and length > self.above:
            length = math.ceil(length / self.multiple) * self.multiple
        return (
            keras.KerasTensor((batch, length, dim), inputs.dtype),
            keras.KerasTensor((batch, length), "bool"),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "multiple": self.multiple,
            "above": self.above,
        }


@keras.saving.register_keras_serializable(package="keras_reformer")
class CutToLength(keras.layers.Layer):
    """Crops its first input to the length of the second."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask):
        """None: the mask of the padded sequence has another length."""
        return None

    def call(self, inputs, like):
        return inputs[:, : keras.ops.shape(like)[1]]

    def compute_output_spec(self, inputs, like):
        shape = (inputs.shape[0], like.shape[1], inputs.shape[2])
        return keras.KerasTensor(shape, inputs.dtype)
