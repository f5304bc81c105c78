import keras

from keras_reformer.layers import checks
from keras_reformer.layers.attention_layer import AttentionLayer
from keras_reformer.ops.attention.exact import (
    QUERY_CHUNK_LENGTH,
    exact_attention,
)
from keras_reformer.ops.decoding.caches import ContextCache


@keras.saving.register_keras_serializable(package="keras_reformer")
class CrossAttention(AttentionLayer):
    """Exact attention of a sequence to another one, the context.

    The third branch of a decoder's `ReversibleBlock`. The scores of one chunk
    of queries at a time are materialized (in the backward pass of one chunk
    of the context) and recomputed in the backward pass, so that memory is
    linear in both lengths. Time is their product.

    Nobody attends to masked positions of the context. Masked inputs, and
    those whose context is masked throughout, have the output of a zero
    context.

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's queries and keys.
        value_dim: int. Size of each head's values. Defaults to `key_dim`.
        dropout: float in `[0, 1)`. Dropout of attention weights. Defaults to
            `0.0`.
        use_bias: bool. Whether projections have biases. Defaults to `False`.
        query_chunk_length: int. Queries in a chunk. The largest tensor has
            shape `(batch * num_heads, query_chunk_length, keys)`. Defaults to
            `128`.
        shared_dropout: bool. Whether all chunks, heads and examples share one
            dropout mask. Defaults to `False`.
        num_key_value_heads: int. Number of heads of keys and values. Each
            serves `num_heads // num_key_value_heads` heads of queries, and
            is all that decoding keeps. Defaults to `num_heads`.
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
        context: Float tensor of shape `(batch, keys, dim)`, such as an
            encoder's outputs.
        mask: Boolean tensor of shape `(batch, length)`.
        context_mask: Boolean tensor of shape `(batch, keys)`.
        training: bool. Whether to apply dropout.
        inputs_mask: the mask attached to the inputs, which Keras fills in.
            `mask` wins.

    Returns:
        Float tensor of the inputs' shape.

    Raises:
        ValueError: if an argument is out of its range, there is no context,
            or the batches differ.

    Example:

    >>> layer = keras_reformer.CrossAttention(num_heads=2, key_dim=16)
    >>> summary = keras.random.normal((1, 10, 32))
    >>> text = keras.random.normal((1, 1000, 64))
    >>> layer(summary, text).shape
    TensorShape([1, 10, 32])

    Reference: [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762),
    section 3.2.3; in chunks: [Rabe and Staats,
    2021](https://arxiv.org/abs/2112.05682); shared keys and values:
    [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245).
    """

    # Distances between two sequences mean nothing.
    _layer_arguments = ()

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        dropout=0.0,
        use_bias=False,
        query_chunk_length=QUERY_CHUNK_LENGTH,
        shared_dropout=False,
        num_key_value_heads=None,
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
            dropout=dropout,
            use_bias=use_bias,
            position_bias=None,
            rotary_embedding=None,
            shared_dropout=shared_dropout,
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
        self.query_chunk_length = checks.positive_int(
            "query_chunk_length", query_chunk_length
        )

    def build(self, inputs_shape=None, context_shape=None):
        checks.sequence_shape(self.name, inputs_shape)
        self._check_context(inputs_shape, context_shape)
        self._build_projections(
            inputs_shape,
            query=inputs_shape,
            key=context_shape,
            value=context_shape,
        )

    def call(
        self,
        inputs,
        context=None,
        mask=None,
        context_mask=None,
        training=None,
        inputs_mask=None,
    ):
        self._check_context(inputs.shape, getattr(context, "shape", None))
        if 0 in (inputs.shape[1], context.shape[1]):
            return self._merge_heads(self._nothing(inputs))
        key, value = self._heads_of(context)
        attended = exact_attention(
            self._split_heads(self.query(inputs), self.key_dim),
            self._repeated(key),
            self._repeated(value),
            query_mask=self._mask(mask, inputs_mask, inputs),
            mask=checks.mask("context_mask", context_mask, context.shape[:2]),
            dropout=self._attention_dropout(training),
            query_chunk_length=self.query_chunk_length,
        )
        return self._merge_heads(attended)

    def prefill(self, inputs, mask, capacity, context=None, context_mask=None):
        """Outputs for prompts, and a `ContextCache`; see `layers.decoding`."""
        outputs = self(
            inputs,
            context,
            mask=mask,
            context_mask=context_mask,
            training=False,
        )
        return outputs, ContextCache.of(*self._heads_of(context), context_mask)

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more token of each row, and the same cache."""
        query = self._split_heads(self.query(inputs), self.key_dim)
        return self._merge_heads(cache.attend(query)), cache

    def _heads_of(self, context):
        """Scaled keys and values."""
        key = self._split_heads(self.key(context), self.key_dim)
        return key / self.key_dim**0.5, self._values(context)

    def _check_context(self, inputs_shape, context_shape):
        shapes = inputs_shape, context_shape
        known = all(x is not None and len(x) == 3 for x in shapes)
        if not known or not checks.fits(inputs_shape[:1], context_shape[:1]):
            raise ValueError(
                "Each example of a batch has inputs and a context to attend "
                "to. Expected inputs `(batch, length, hidden_dim)` and "
                "context `(batch, keys, dim)`. Received: inputs.shape="
                f"{inputs_shape}, context.shape={context_shape}"
            )

    def compute_output_shape(self, inputs_shape, context_shape=None):
        return tuple(inputs_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "query_chunk_length": self.query_chunk_length,
            "num_key_value_heads": self.num_key_value_heads,
        }
