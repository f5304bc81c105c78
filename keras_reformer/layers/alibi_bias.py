import math

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.position_bias import PositionBiasLayer


@keras.saving.register_keras_serializable(package="keras_reformer")
class AlibiBias(PositionBiasLayer):
    """ALiBi, attention with linear biases, as a `position_bias`.

    `-slope * |query position - key position|`, where the slopes of the heads
    are a geometric sequence that ends at `2 ** -alibi_bias_max`. It has no
    weights.

    Args:
        num_heads: int. Number of attention heads.
        alibi_bias_max: float. Negative base-2 logarithm of the least slope.
            Defaults to `8`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        query_positions: int32 tensor.
        key_positions: int32 tensor.
        heads: int32 tensor; the three broadcast against each other.

    Returns:
        Float tensor of the broadcast shape, float32 at least.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> layer = keras_reformer.LocalSelfAttention(
    ...     num_heads=2, key_dim=16,
    ...     position_bias=keras_reformer.AlibiBias(num_heads=2),
    ... )
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Press et al., 2022](https://arxiv.org/abs/2108.12409),
    section 3.
    """

    def __init__(self, num_heads, alibi_bias_max=8, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.alibi_bias_max = checks.positive("alibi_bias_max", alibi_bias_max)

    def call(self, query_positions, key_positions, heads):
        slopes = _slopes(self.num_heads, self.alibi_bias_max)
        slopes = keras.ops.convert_to_tensor(slopes, self.compute_dtype)
        distance = keras.ops.abs(query_positions - key_positions)
        distance = keras.ops.cast(distance, self.compute_dtype)
        return -keras.ops.take(slopes, heads, axis=0) * distance

    def get_config(self):
        return {**super().get_config(), "alibi_bias_max": self.alibi_bias_max}


def _slopes(num_heads, largest):
    """The published slopes; beyond a power of two, those in between."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-largest * (i + 1) / power) for i in range(power)]
    between = [2 ** (-largest * (i + 0.5) / power) for i in range(power)]
    return slopes + between[: num_heads - power]
