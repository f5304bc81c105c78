import keras

from keras_reformer.layers.chunked_self_attention import ChunkedSelfAttention
from keras_reformer.layers.decoding import check_causal
from keras_reformer.ops.attention.local import local_attention
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.decoding.attention import Step
from keras_reformer.ops.decoding.caches import LocalCache


@keras.saving.register_keras_serializable(package="keras_reformer")
class LocalSelfAttention(ChunkedSelfAttention):
    """Multi-head local self-attention over chunks of the sequence.

    Each token attends to its own chunk, to `num_chunks_before` chunks before
    it and to `num_chunks_after` after it. Time and memory are linear in the
    length.

    Masking: nobody attends to masked tokens, and their outputs are those of
    a zero context. Inputs may have any length; they are padded inside to a
    multiple of `chunk_length`.

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's queries and keys.
        value_dim: int. Size of each head's values. Defaults to `key_dim`.
        chunk_length: int. Tokens in a chunk. Defaults to `64`.
        num_chunks_before: int. Defaults to `1`.
        num_chunks_after: int. Defaults to `0`.
        causal: bool. Whether to mask later tokens. Defaults to `False`.
        wrap: bool. Whether the last chunk is before the first, as published.
            Defaults to `False`.
        dropout: float in `[0, 1)`. Dropout of attention weights. Defaults to
            `0.0`.
        use_bias: bool. Whether projections have biases. Defaults to `False`.
        position_bias: Keras layer, such as `AlibiBias` or
            `RelativePositionBias`, called on int32 query positions, key
            positions and heads, which broadcast against each other; its
            output is added to the scores.
        rotary_embedding: `RotaryEmbedding` of queries and keys.
        shared_dropout: bool. Whether all chunks, heads and examples share
            one dropout mask, as published. Defaults to `False`.
        num_key_value_heads: int. Number of heads of keys and values. Each
            serves `num_heads // num_key_value_heads` heads of queries, and
            is all that decoding keeps. Defaults to `num_heads`.
        num_global_tokens: int. Tokens at the beginning that every token sees
            besides its window, in a causal layer every later one; if not
            causal, they see all tokens too. Masked ones are seen by nobody:
            a row with padding in front has fewer or none. Defaults to `0`.
        kernel_initializer: Initializer of the projections. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the projections.
        bias_regularizer: Regularizer of biases.
        kernel_constraint: Constraint of the projections.
        bias_constraint: Constraint of biases.
        seed: int. Seed of dropout.
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, True at valid tokens.
        training: bool. Whether to apply dropout.
        segment_ids: Integer tensor of shape `(batch, length)`: equal for
            tokens of one document of several packed into a row. Documents
            do not see each other, and positions begin anew in each.
        inputs_mask: the mask attached to the inputs, which Keras fills in.
            `mask` wins.

    Returns:
        Float tensor of shape `(batch, length, hidden_dim)`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> layer = keras_reformer.LocalSelfAttention(num_heads=2, key_dim=16)
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451), the
    code published with it. Shared keys and values: [Ainslie et al.,
    2023](https://arxiv.org/abs/2305.13245).
    """

    _projections = ("query", "key", "value")

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
        position_bias=None,
        rotary_embedding=None,
        shared_dropout=False,
        num_key_value_heads=None,
        num_global_tokens=0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        seed=None,
        sublayers=None,
        **kwargs,
    ):
        super().__init__(
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            chunk_length=chunk_length,
            num_chunks_before=num_chunks_before,
            num_chunks_after=num_chunks_after,
            causal=causal,
            wrap=wrap,
            dropout=dropout,
            use_bias=use_bias,
            position_bias=position_bias,
            rotary_embedding=rotary_embedding,
            shared_dropout=shared_dropout,
            num_global_tokens=num_global_tokens,
            num_key_value_heads=num_key_value_heads,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
            sublayers=sublayers,
            **kwargs,
        )

    def call(
        self,
        inputs,
        mask=None,
        training=None,
        segment_ids=None,
        inputs_mask=None,
    ):
        mask = self._mask(mask, inputs_mask, inputs)
        segments = self._segments(segment_ids, inputs.shape[:2])
        attended = self._attend(
            self._heads(inputs, segments=segments),
            mask,
            self._attention_dropout(training),
            segments,
        )
        return self._merge_heads(attended)

    def prefill(self, inputs, mask, capacity):
        """Outputs for prompts, and a `LocalCache`; see `layers.decoding`.

        The cache holds the positions of one window only.
        """
        check_causal(self)
        query, key, value = self._heads(inputs)
        attended = self._attend((query, key, value), mask, None)
        lengths = keras.ops.sum(keras.ops.cast(mask, "int32"), axis=1)
        cache = LocalCache.of_prompt(key, value, lengths, self._window())
        return self._merge_heads(attended), cache

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more token of each row, and the cache."""
        step = Step(
            *self._heads(inputs, positions),
            positions,
            shared=False,
            bias=self._bias(),
        )
        attended, cache = cache.attend(step, self._window())
        return self._merge_heads(attended), cache

    def _heads(self, inputs, start_index=0, segments=None):
        positions = start_index, segments
        query = self._rotated_heads(self.query(inputs), *positions)
        key = self._rotated_heads(self.key(inputs), *positions)
        return query, key / self.key_dim**0.5, self._values(inputs)

    def _attend(self, heads, mask, dropout, segments=None):
        query, key, value = heads
        if 0 in value.shape:
            return self._repeated(value)
        return local_attention(
            query,
            self._repeated(key),
            self._repeated(value),
            self._window(),
            mask=mask,
            wrap=self.wrap,
            dropout=dropout,
            bias=self._bias(),
            segments=segments,
        )

    def _window(self):
        return Window(
            self.chunk_length,
            self.num_chunks_before,
            self.num_chunks_after,
            self.causal,
            sees_itself=True,
            same_bucket=False,
            num_global=self.num_global_tokens,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_key_value_heads": self.num_key_value_heads,
        }
