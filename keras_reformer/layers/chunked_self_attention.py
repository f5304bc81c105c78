import keras

from keras_reformer.layers import checks
from keras_reformer.layers.projecting_layer import ProjectingLayer


class ChunkedSelfAttention(ProjectingLayer):
    """What the self-attention layers over chunks share: all but attention.

    Arguments, projections of inputs into heads and back, and the config. A
    subclass names its projections into heads in `_projections` and attends
    in its own `call`. It takes `ProjectingLayer`'s arguments too.
    """

    _projections: tuple[str, ...] = ()

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        chunk_length=64,
        num_chunks_before=1,
        num_chunks_after=0,
        causal=False,
        wrap=False,
        dropout=0.0,
        use_bias=False,
        **kwargs,
    ):
        super().__init__(use_bias, **kwargs)
        value_dim = key_dim if value_dim is None else value_dim
        self.num_heads = checks.positive_int("num_heads", num_heads)
        self.key_dim = checks.positive_int("key_dim", key_dim)
        self.value_dim = checks.positive_int("value_dim", value_dim)
        self.chunk_length = checks.positive_int("chunk_length", chunk_length)
        self.num_chunks_before = checks.count(
            "num_chunks_before", num_chunks_before
        )
        self.num_chunks_after = checks.count(
            "num_chunks_after", num_chunks_after
        )
        self.causal = bool(causal)
        self.wrap = bool(wrap)
        self.dropout = checks.rate("dropout", dropout)

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)
        for name in self._projections:
            dim = self.value_dim if name == "value" else self.key_dim
            self._build_dense(name, self.num_heads * dim, input_shape)
        merged_shape = (*input_shape[:-1], self.num_heads * self.value_dim)
        self._build_dense("attention_output", input_shape[-1], merged_shape)

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
            "chunk_length": self.chunk_length,
            "num_chunks_before": self.num_chunks_before,
            "num_chunks_after": self.num_chunks_after,
            "causal": self.causal,
            "wrap": self.wrap,
            "dropout": self.dropout,
        }
