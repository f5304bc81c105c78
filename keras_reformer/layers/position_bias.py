import keras

from keras_reformer.layers import checks
from keras_reformer.layers.reversible_block import stream_dtype


class PositionBiasLayer(keras.layers.Layer):
    """Base of the position biases, which are added to attention scores.

    They are called on int32 query positions, key positions and heads, which
    broadcast against each other, and return float32 at least. Each element
    depends on its own query, key and head alone, so that a kernel may
    evaluate any tile of pairs.

    Args:
        num_heads: int. Number of attention heads.
        **kwargs: Base layer arguments, such as `name` and `dtype`.
    """

    def __init__(self, num_heads, **kwargs):
        kwargs["dtype"] = stream_dtype(kwargs.get("dtype"))
        super().__init__(autocast=False, **kwargs)
        self.num_heads = checks.positive_int("num_heads", num_heads)

    def compute_output_spec(self, query_positions, key_positions, heads):
        shape = query_positions.shape
        for other in (key_positions.shape, heads.shape):
            shape = _broadcast(shape, other)
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


def _broadcast(one, other):
    rank = max(len(one), len(other))
    one = (1,) * (rank - len(one)) + tuple(one)
    other = (1,) * (rank - len(other)) + tuple(other)
    return tuple(b if a == 1 else a for a, b in zip(one, other, strict=True))
