import keras

from keras_reformer.layers import checks
from keras_reformer.ops.attention.short_convolution import (
    ConvolutionCache,
    short_convolution,
)


@keras.saving.register_keras_serializable(package="keras_reformer")
class ShortConvolution(keras.layers.Layer):
    """Short causal depthwise convolution, without bias.

    The kernel is initialized with ones, a sum over positions: from the first
    step on a token's vector shares a term with those of tokens that follow
    one like its predecessor.

    Masked positions are zeros, so padding changes nothing.

    Args:
        kernel_size: int. Number of positions, the present one included.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, channels)`.
        mask: Boolean tensor of shape `(batch, length)`, True at valid tokens.
        positions: int32 tensor of shape `(batch, length)`: positions in
            documents that are packed into rows. Defaults to `None`.

    Returns:
        Float tensor of the inputs' shape.

    Reference: [So et al., 2021](https://arxiv.org/abs/2109.08668),
    "Multi-DConv-Head Attention".
    """

    def __init__(self, kernel_size, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.kernel_size = checks.positive_int("kernel_size", kernel_size)

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)

        self.depthwise_kernel = self.add_weight(
            shape=(self.kernel_size, input_shape[-1]),
            initializer="ones",
            name="depthwise_kernel",
        )

    def call(self, inputs, mask=None, positions=None):
        kernel = self._kernel(inputs)
        return short_convolution(_valid(inputs, mask), kernel, positions)

    def prefill(self, inputs, mask, capacity):
        """Outputs for prompts, and a `ConvolutionCache`."""
        inputs = _valid(inputs, mask)
        lengths = _lengths(inputs, mask)
        cache = ConvolutionCache.of_prompt(inputs, lengths, self.kernel_size)
        return short_convolution(inputs, self._kernel(inputs)), cache

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more token of each row, and the cache."""
        return cache.convolve(inputs, self._kernel(inputs))

    def _kernel(self, inputs):
        return keras.ops.cast(self.depthwise_kernel, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}


def _valid(inputs, mask):
    """Inputs, zero where they are masked."""
    if mask is None:
        return inputs
    return inputs * keras.ops.cast(mask, inputs.dtype)[..., None]


def _lengths(inputs, mask):
    """Number of valid tokens of each row, which come first."""
    if mask is None:
        batch, length = keras.ops.shape(inputs)[:2]
        return keras.ops.full((batch,), length, "int32")
    return keras.ops.sum(keras.ops.cast(mask, "int32"), axis=1)
