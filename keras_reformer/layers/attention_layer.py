import keras

from keras_reformer.layers import checks
from keras_reformer.layers.projecting_layer import ProjectingLayer


class AttentionLayer(ProjectingLayer):
    """What all attention layers share: heads, their widths and dropout.

    Inputs are projected into heads by dense layers, the heads' outputs back
    by `attention_output`. It takes `ProjectingLayer`'s arguments too.
    """

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        dropout=0.0,
        use_bias=False,
        **kwargs,
    ):
        super().__init__(use_bias, **kwargs)
        value_dim = key_dim if value_dim is None else value_dim
        self.num_heads = checks.positive_int("num_heads", num_heads)
        self.key_dim = checks.positive_int("key_dim", key_dim)
        self.value_dim = checks.positive_int("value_dim", value_dim)
        self.dropout = checks.rate("dropout", dropout)

    def _build_projections(self, output_shape, **input_shapes):
        """Makes a projection into heads for each name, and the one back."""
        for name, shape in input_shapes.items():
            checks.sequence_shape(self.name, shape)
            dim = self.value_dim if name == "value" else self.key_dim
            self._build_dense(name, self.num_heads * dim, shape)
        merged_shape = (*output_shape[:-1], self.num_heads * self.value_dim)
        self._build_dense("attention_output", output_shape[-1], merged_shape)

    def _split_heads(self, projected):
        """`(b, t, h * d)` to `(b, h, t, d)`."""
        length = keras.ops.shape(projected)[1]
        dim = projected.shape[-1] // self.num_heads
        split = keras.ops.reshape(projected, (-1, length, self.num_heads, dim))
        return keras.ops.transpose(split, (0, 2, 1, 3))

    def _merge_heads(self, attended):
        """`(b, h, t, d)` to the layer's output `(b, t, e)`."""
        length = keras.ops.shape(attended)[2]
        merged = keras.ops.reshape(
            keras.ops.transpose(attended, (0, 2, 1, 3)),
            (-1, length, self.num_heads * self.value_dim),
        )
        return self.attention_output(keras.ops.cast(merged, self.compute_dtype))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
        }
