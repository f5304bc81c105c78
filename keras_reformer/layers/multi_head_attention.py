import keras

from keras_reformer.layers import checks
from keras_reformer.layers.attention_layer import AttentionLayer
from keras_reformer.layers.decoding import check_causal
from keras_reformer.layers.masks import given_mask
from keras_reformer.ops.attention.exact import (
    QUERY_CHUNK_LENGTH,
    exact_attention,
    exact_shared_attention,
)
from keras_reformer.ops.decoding.attention import Step
from keras_reformer.ops.decoding.caches import ExactCache


@keras.saving.register_keras_serializable(package="keras_reformer")
class MultiHeadAttention(AttentionLayer):
    """Exact multi-head attention with memory linear in the length.

    Like `keras.layers.MultiHeadAttention`, for self- and cross-attention, but
    the scores of one chunk of queries at a time are materialized (in the
    backward pass of one chunk of keys), and the backward pass recomputes
    them. Time is quadratic. Attention scores are not returned, which would
    take quadratic memory.

    With `share_query_key` it computes what `LSHSelfAttention` approximates:
    keys are the queries scaled to unit length, and a token attends to itself
    only where it sees nothing else.

    Masking: nobody attends to masked tokens. Masked queries, and queries
    whose keys are all masked, have the output of a zero context (Keras's
    layer averages all values in the latter case).

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's queries and keys.
        value_dim: int. Size of each head's values. Defaults to `key_dim`.
        dropout: float in `[0, 1)`. Dropout of attention weights. Defaults to
            `0.0`.
        use_bias: bool. Whether projections have biases. Defaults to `True`.
        share_query_key: bool. Whether queries and keys are one projection,
            for self-attention only. Defaults to `False`.
        query_chunk_length: int. Queries in a chunk. The largest tensor has
            shape `(batch * num_heads, query_chunk_length, length)`. Defaults
            to `128`.
        causal: bool. Whether to mask later tokens in every call. Defaults to
            `False`.
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
        query: Float tensor of shape `(batch, queries, dim)`.
        value: Float tensor of shape `(batch, keys, value_dim)`. Defaults to
            `query`: self-attention.
        key: Float tensor of shape `(batch, keys, key_dim)`. Defaults to
            `value`.
        mask: Boolean tensor `(batch, queries)`, for self-attention, instead
            of `query_mask`.
        query_mask: Boolean tensor `(batch, queries)`.
        value_mask: Boolean tensor `(batch, keys)`.
        key_mask: Boolean tensor `(batch, keys)`.
        attention_mask: Boolean tensor `(batch, queries, keys)`, True where a
            query may attend to a key.
        attention_bias: Float tensor `(batch or 1, num_heads or 1, queries,
            keys)`, added to the scores. Differentiable.
        training: bool. Whether to apply dropout.
        use_causal_mask: bool. Whether to mask later tokens.
        segment_ids: Integer tensor of shape `(batch, length)`: equal for
            tokens of one document of several packed into a row, for
            self-attention. Documents do not see each other, and positions
            begin anew in each.

    Returns:
        Float tensor of the query's shape.

    Raises:
        ValueError: if an argument is out of its range, or a layer with
            `share_query_key` gets another value or key.

    Example:

    >>> layer = keras_reformer.MultiHeadAttention(num_heads=2, key_dim=16)
    >>> x = keras.random.normal((1, 1000, 32))
    >>> layer(x, use_causal_mask=True).shape
    TensorShape([1, 1000, 32])
    >>> layer(x[:, :10], x).shape
    TensorShape([1, 10, 32])

    Reference: [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762),
    section 3.2; in chunks: [Rabe and Staats,
    2021](https://arxiv.org/abs/2112.05682); shared query-keys: [Kitaev et
    al., 2020](https://arxiv.org/abs/2001.04451), section 2; shared keys
    and values: [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245).
    """

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
        dropout=0.0,
        use_bias=True,
        share_query_key=False,
        query_chunk_length=QUERY_CHUNK_LENGTH,
        causal=False,
        position_bias=None,
        rotary_embedding=None,
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
            position_bias=position_bias,
            rotary_embedding=rotary_embedding,
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
        self.share_query_key = checks.boolean(
            "share_query_key", share_query_key
        )
        if self.share_query_key:
            checks.no_key_value_heads(num_key_value_heads, self.num_heads)
        self.query_chunk_length = checks.positive_int(
            "query_chunk_length", query_chunk_length
        )
        self.causal = checks.boolean("causal", causal)

    def build(self, query_shape=None, value_shape=None, key_shape=None):
        checks.sequence_shape(self.name, query_shape)
        value_shape = value_shape or query_shape
        key_shape = key_shape or value_shape
        if self.share_query_key:
            shapes = {"query_key": query_shape}
        else:
            shapes = {"query": query_shape, "key": key_shape}
        self._build_projections(query_shape, **shapes, value=value_shape)

    def call(
        self,
        query,
        value=None,
        key=None,
        mask=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        attention_bias=None,
        training=None,
        use_causal_mask=False,
        segment_ids=None,
    ):
        own = value is None and key is None
        self._check_own(own, segment_ids)
        value = query if value is None else value
        key = value if key is None else key
        _check_lengths(query, value, key)
        rows, keys = query.shape[:2], value.shape[:2]
        pairs = (*rows, keys[1])
        segments = self._segments(segment_ids, rows)
        options = {
            "causal": self.causal
            or checks.boolean("use_causal_mask", use_causal_mask),
            "attention_mask": _checked_mask(attention_mask, pairs),
            "attention_bias": self._checked_bias(attention_bias, pairs),
            "bias": self._bias(),
            "dropout": self._attention_dropout(training),
            "query_chunk_length": self.query_chunk_length,
            "segments": segments,
        }
        query_mask = checks.mask("query_mask", query_mask, rows)
        if own:
            query_mask = given_mask(checks.mask("mask", mask, rows), query_mask)
        key_mask = _both(keys, key_mask=key_mask, value_mask=value_mask)
        if own:
            key_mask = _both(rows, query_mask=query_mask, key_mask=key_mask)
        if 0 in pairs:
            attended = self._nothing(query)
        elif self.share_query_key:
            query, _, value = self._own_heads(query, segments=segments)
            attended = exact_shared_attention(
                query, value, mask=key_mask, **options
            )
        else:
            attended = exact_attention(
                self._rotated_heads(self.query(query), 0, segments),
                self._repeated(self._keys(key, 0, segments)),
                self._repeated(self._values(value)),
                query_mask=query_mask,
                mask=key_mask,
                **options,
            )
        return self._merge_heads(attended)

    def prefill(self, inputs, mask, capacity):
        """Outputs for prompts, and an `ExactCache`; see `layers.decoding`."""
        check_causal(self)
        _, key, value = self._own_heads(inputs)
        cache = ExactCache.of_prompt(key, value, capacity)
        return self(inputs, mask=mask, training=False), cache

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more token of each row, and the cache."""
        step = Step(
            *self._own_heads(inputs, positions),
            positions,
            shared=self.share_query_key,
            bias=self._bias(),
        )
        attended, cache = cache.attend(step)
        return self._merge_heads(attended), cache

    def _own_heads(self, inputs, start_index=0, segments=None):
        """Queries, keys and values of self-attention."""
        value, positions = self._values(inputs), (start_index, segments)
        if self.share_query_key:
            both = self._rotated_heads(self.query_key(inputs), *positions)
            return both, both, value
        query = self._rotated_heads(self.query(inputs), *positions)
        return query, self._keys(inputs, *positions), value

    def _keys(self, inputs, start_index, segments):
        key = self._rotated_heads(self.key(inputs), start_index, segments)
        return key / self.key_dim**0.5

    def _checked_bias(self, bias, pairs):
        if bias is None:
            return None
        if not hasattr(bias, "shape") or not hasattr(bias, "dtype"):
            raise ValueError(
                "`attention_bias` must be a tensor of floats. Received: "
                f"attention_bias={bias!r}"
            )
        shape, (batch, queries, keys) = tuple(bias.shape), pairs
        fits = any(
            checks.fits(shape, (rows, heads, queries, keys))
            for rows in (1, batch)
            for heads in (1, self.num_heads)
        )
        if not fits:
            raise ValueError(
                "`attention_bias` is added to the scores of each head. "
                "Expected shape (batch or 1, num_heads or 1, queries, keys) "
                f"with num_heads={self.num_heads}. Received: "
                f"attention_bias.shape={shape}"
            )
        return keras.ops.convert_to_tensor(bias)

    def _check_own(self, own, segment_ids):
        """Refuses another sequence where there must be but one."""
        if self.share_query_key and not own:
            raise ValueError(
                "A layer with shared queries and keys attends to its own "
                "inputs. Expected value=None and key=None. Received: another "
                "value or key. Use `share_query_key=False`."
            )
        if segment_ids is not None and not own:
            raise ValueError(
                "Segments tell the documents of one sequence apart. Expected "
                "value=None and key=None, or an `attention_mask` instead of "
                "segment_ids. Received: segment_ids and another value or key"
            )

    def compute_output_shape(self, query_shape, *other_shapes, **kwargs):
        return tuple(query_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "share_query_key": self.share_query_key,
            "query_chunk_length": self.query_chunk_length,
            "causal": self.causal,
            "num_key_value_heads": self.num_key_value_heads,
        }


def _checked_mask(mask, pairs):
    # One for the whole batch will do.
    if getattr(mask, "shape", pairs)[:1] == (1,):
        pairs = (1, *pairs[1:])
    return checks.mask("attention_mask", mask, pairs)


def _check_lengths(query, value, key):
    shapes = [x.shape for x in (query, value, key)]
    fits = all(len(shape) == 3 for shape in shapes)
    fits = fits and checks.fits(shapes[1][:2], shapes[2][:2])
    if not fits or not checks.fits(shapes[0][:1], shapes[1][:1]):
        query, value, key = map(tuple, shapes)
        raise ValueError(
            "Each value has a key, and each example of a batch has "
            "queries and keys. Expected query `(batch, queries, dim)`, "
            "value and key `(batch, keys, dim)`. Received: query.shape="
            f"{query}, value.shape={value}, key.shape={key}"
        )


def _both(shape, **masks):
    """The conjunction of masks of a shape; None hides nothing."""
    first, second = (checks.mask(*mask, shape) for mask in masks.items())
    if first is None or second is None:
        return second if first is None else first
    return keras.ops.logical_and(first, second)
