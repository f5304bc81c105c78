from keras_reformer.layers import checks
from keras_reformer.layers.attention_layer import AttentionLayer


class ChunkedSelfAttention(AttentionLayer):
    """Base of the self-attention layers over chunks.

    A subclass names its projections into heads in `_projections` and attends
    in its own `call`.

    Args:
        chunk_length: int. Tokens in a chunk.
        num_chunks_before: int. Chunks before its own that a token sees.
        num_chunks_after: int. Chunks after its own that a token sees.
        causal: bool. Whether to mask later tokens.
        num_global_tokens: int. Tokens at the beginning that every token sees.
        wrap: bool. Whether the last chunk is before the first.
        **kwargs: Arguments of `AttentionLayer`.
    """

    _projections: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        chunk_length,
        num_chunks_before,
        num_chunks_after,
        causal,
        wrap,
        num_global_tokens,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.chunk_length = checks.positive_int("chunk_length", chunk_length)
        self.num_chunks_before = checks.count(
            "num_chunks_before", num_chunks_before
        )
        self.num_chunks_after = checks.count(
            "num_chunks_after", num_chunks_after
        )
        self.causal = checks.boolean("causal", causal)
        self.wrap = checks.boolean("wrap", wrap)
        self.num_global_tokens = checks.count(
            "num_global_tokens", num_global_tokens
        )

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)
        self._build_projections(
            input_shape, **dict.fromkeys(self._projections, input_shape)
        )

    def _segments(self, segment_ids, shape):
        if segment_ids is not None and self.wrap:
            raise ValueError(
                "With `wrap` the last chunk of a row is before the first, "
                "whatever documents are packed into it. Expected wrap=False "
                "or segment_ids=None. Received: wrap=True in layer "
                f"`{self.name}`, segment_ids of shape {tuple(shape)}"
            )
        return super()._segments(segment_ids, shape)

    def get_config(self):
        return {
            **super().get_config(),
            "chunk_length": self.chunk_length,
            "num_chunks_before": self.num_chunks_before,
            "num_chunks_after": self.num_chunks_after,
            "causal": self.causal,
            "wrap": self.wrap,
            "num_global_tokens": self.num_global_tokens,
        }
