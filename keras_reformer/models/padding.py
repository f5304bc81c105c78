"""Padding to whole chunks of every layer, as the published model pads."""

import math

import keras

from keras_reformer.ops.loops.shapes import pad_to_multiple


def published_multiple(config):
    """What lengths are padded to, and from which length on.

    Each layer pads to its own chunks. Where chunks look round the end of the
    sequence, it matters how long the padding is: the published model pads to
    chunks of all its layers, except inputs that fit into the smallest chunk,
    which get exact attention.

    Returns:
        multiple: int, or None where the layers' own padding does.
        above: int. Shorter inputs and those as long are left alone.
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
    """Zeros behind each row up to a multiple of a length, and their mask.

    Args:
        multiple: int. What the length becomes a multiple of.
        above: int. Rows of at most this length are left alone.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, dim)`.
        padding_mask: Boolean tensor `(batch, length)`, or None.

    Returns:
        Both, as long as the multiple; the mask is False at the zeros.
    """

    def __init__(self, multiple, above=0, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.multiple = multiple
        self.above = above

    def compute_mask(self, inputs, previous_mask):
        """The mask is an output; none is attached."""
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
    """The first positions of its first input, as many as the second has."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask):
        """The mask of the padded sequence is not that of its beginning."""
        return None

    def call(self, inputs, like):
        return inputs[:, : keras.ops.shape(like)[1]]

    def compute_output_spec(self, inputs, like):
        shape = (inputs.shape[0], like.shape[1], inputs.shape[2])
        return keras.KerasTensor(shape, inputs.dtype)
