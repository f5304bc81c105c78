from keras_reformer.layers import checks
from keras_reformer.layers.attention_layer import AttentionLayer


class ChunkedSelfAttention(AttentionLayer):
    """What the self-attention layers over chunks share: all but attention.

    A subclass names its projections into heads in `_projections` and attends
    in its own `call`. It takes `AttentionLayer`'s arguments too.
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
        super().__init__(
            num_heads, key_dim, value_dim, dropout, use_bias, **kwargs
        )
        self.chunk_length = checks.positive_int("chunk_length", chunk_length)
        self.num_chunks_before = checks.count(
            "num_chunks_before", num_chunks_before
        )
        self.num_chunks_after = checks.count(
            "num_chunks_after", num_chunks_after
        )
        self.causal = checks.boolean("causal", causal)
        self.wrap = checks.boolean("wrap", wrap)

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)
        self._build_projections(
            input_shape, **dict.fromkeys(self._projections, input_shape)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "chunk_length": self.chunk_length,
            "num_chunks_before": self.num_chunks_before,
            "num_chunks_after": self.num_chunks_after,
            "causal": self.causal,
            "wrap": self.wrap,
        }
