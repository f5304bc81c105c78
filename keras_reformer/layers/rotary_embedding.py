import keras

from keras_reformer.layers import checks
from keras_reformer.ops.attention.positions import rotate


@keras.saving.register_keras_serializable(package="keras_reformer")
class RotaryEmbedding(keras.layers.Layer):
    """Turns the vectors of each position by angles that grow with it.

    Pairs of coordinates (`i` and `dim / 2 + i`) are points in planes, turned
    `max_wavelength ** (-2 i / dim)` radians a position. The product of two
    turned vectors depends on the distance of their positions alone. Lengths
    do not change, so shared query-keys keep the keys that they had.

    Angles are exact to 1e-4 radians at a million positions, where a float32
    product of position and frequency would be off by 0.06.

    Args:
        max_wavelength: float. Positions in which the slowest plane would
            turn once, over two pi. Defaults to `10000`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(..., length, dim)`, `dim` even.
        start_index: int, int tensor or one int a row `(batch,)`. Position of
            the first vector, for decoding step by step. Defaults to `0`.

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
                "Rotary embeddings turn pairs of coordinates. Expected inputs "
                "`(..., length, dim)` whose last dimension is even. Received: "
                f"input_shape={tuple(input_shape)}"
            )

    def call(self, inputs, start_index=0):
        checks.numeric("inputs", inputs)
        checks.start_index(start_index, inputs.shape[0])
        return rotate(inputs, self.max_wavelength, start_index)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "max_wavelength": self.max_wavelength}
