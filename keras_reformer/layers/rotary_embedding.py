import keras

from keras_reformer.layers import checks
from keras_reformer.ops.attention.positions import rotate


@keras.saving.register_keras_serializable(package="keras_reformer")
class RotaryEmbedding(keras.layers.Layer):
    """Rotary position embedding (RoPE) of queries and keys.

    Pairs of coordinates (`i` and `dim / 2 + i`) are rotated by `position *
    max_wavelength ** (-2 i / dim)` radians, so that the product of two
    vectors depends on the difference of their positions. Norms do not change,
    so shared query-keys may be rotated before keys are normalized.

    Angles are exact to 1e-4 radians at a million positions, where a float32
    product of position and frequency would be off by 0.06.

    Args:
        max_wavelength: float. Base of the frequencies: an upper bound of the
            wavelengths, in positions per radian. Defaults to `10000`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(..., length, dim)`, `dim` even.
        start_index: int, int tensor or one int a row `(batch,)`. Position of
            the first vector, for decoding step by step. Defaults to `0`.
        positions: Integer tensor of shape `(batch, length)`: all positions,
            where they do not count from `start_index`. Defaults to `None`.

    Returns:
        Float tensor of the inputs' shape.

    Raises:
        ValueError: if `dim` is odd or unknown.

    Example:

    >>> layer = keras_reformer.RotaryEmbedding()
    >>> layer(keras.random.normal((1, 2, 1000, 16))).shape
    TensorShape([1, 2, 1000, 16])

    Reference: [Su et al., 2021](https://arxiv.org/abs/2104.09864),
    section 3.2.
    """

    def __init__(self, max_wavelength=10000, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.max_wavelength = checks.positive("max_wavelength", max_wavelength)

    def build(self, input_shape):
        checks.vectors_shape(self.name, input_shape)
        if input_shape[-1] % 2:
            raise ValueError(
                "Rotary embeddings rotate pairs of coordinates. Expected "
                "inputs `(..., length, dim)` whose last dimension is even. "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def call(self, inputs, start_index=0, positions=None):
        checks.numeric("inputs", inputs)
        checks.start_index(start_index, inputs.shape[0])
        shape = inputs.shape[0], inputs.shape[-2]
        positions = checks.integers("positions", positions, shape)
        return rotate(inputs, self.max_wavelength, start_index, positions)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "max_wavelength": self.max_wavelength}
