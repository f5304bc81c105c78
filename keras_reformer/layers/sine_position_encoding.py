import keras

from keras_reformer.layers import checks
from keras_reformer.ops.attention.positions import sine_positions


@keras.saving.register_keras_serializable(package="keras_reformer")
class SinePositionEncoding(keras.layers.Layer):
    """Sinusoidal position encoding, without weights.

    Features `2 i` and `2 i + 1` are sine and cosine of
    `position * max_wavelength ** (-2 i / dim)`.

    Called on embeddings, returns the positions to add to them.

    Args:
        max_wavelength: float. Base of the frequencies: an upper bound of the
            wavelengths, in positions per radian. Defaults to `10000`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, dim)`. Only its shape
            matters.
        start_index: int, int tensor or one int a row `(batch,)`. Position of
            the first input, for decoding step by step. Defaults to `0`.
        positions: Integer tensor of shape `(batch, length)`: all positions,
            where they do not count from `start_index`. Defaults to `None`.

    Returns:
        Float tensor of the inputs' shape.

    Raises:
        ValueError: if the inputs are not of rank 3.

    Example:

    >>> layer = keras_reformer.SinePositionEncoding()
    >>> layer(keras.ops.zeros((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762),
    section 3.5.
    """

    def __init__(self, max_wavelength=10000, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.max_wavelength = checks.positive("max_wavelength", max_wavelength)

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)

    def call(self, inputs, start_index=0, positions=None):
        checks.start_index(start_index, inputs.shape[0])
        positions = checks.integers("positions", positions, inputs.shape[:2])
        shape = keras.ops.shape(inputs)
        positions = sine_positions(
            shape[1],
            inputs.shape[-1],
            self.max_wavelength,
            start_index,
            self.compute_dtype,
            positions,
        )
        return keras.ops.broadcast_to(positions, shape)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "max_wavelength": self.max_wavelength}
