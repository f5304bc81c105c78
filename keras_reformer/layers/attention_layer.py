import keras

from keras_reformer.layers import checks
from keras_reformer.layers.masks import given_mask
from keras_reformer.layers.projecting_layer import ProjectingLayer
from keras_reformer.layers.stateless import pure_outputs
from keras_reformer.layers.sublayers import adopt
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.segments import Segments


class AttentionLayer(ProjectingLayer):
    """Base of all attention layers: heads, position bias, rotary, dropout.

    Dense layers project inputs into heads, and `attention_output` projects
    the attended values of all heads back.

    Args:
        num_heads: int. Number of attention heads.
        num_key_value_heads: int. Number of heads of keys and values; `None`
            means `num_heads`.
        key_dim: int. Size of each head's queries and keys.
        value_dim: int. Size of each head's values; `None` means `key_dim`.
        dropout: float in `[0, 1)`. Dropout of attention weights.
        position_bias: Keras layer or None.
        rotary_embedding: `RotaryEmbedding` or None.
        shared_dropout: bool. Whether all share one dropout mask.
        **kwargs: Arguments of `ProjectingLayer`.
    """

    _layer_arguments = ("position_bias", "rotary_embedding")

    def __init__(
        self,
        *,
        num_heads,
        key_dim,
        value_dim,
        dropout,
        position_bias,
        rotary_embedding,
        shared_dropout,
        num_key_value_heads=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        value_dim = key_dim if value_dim is None else value_dim
        self.num_heads = checks.positive_int("num_heads", num_heads)
        self.num_key_value_heads = checks.num_key_value_heads(
            num_key_value_heads, self.num_heads
        )
        self.key_dim = checks.positive_int("key_dim", key_dim)
        self.value_dim = checks.positive_int("value_dim", value_dim)
        self.dropout = checks.rate("dropout", dropout)
        self.position_bias = adopt(
            checks.layer_or_none("position_bias", position_bias)
        )
        self.rotary_embedding = adopt(
            checks.layer_or_none("rotary_embedding", rotary_embedding)
        )
        self.shared_dropout = checks.boolean("shared_dropout", shared_dropout)

    def _build_projections(self, output_shape, **input_shapes):
        """Makes a projection into heads for each name, and the output's."""
        for name, shape in input_shapes.items():
            checks.sequence_shape(self.name, shape)
            dim = self.value_dim if name == "value" else self.key_dim
            heads = self.num_heads
            if name in ("key", "value"):
                heads = self.num_key_value_heads
            self._build_dense(name, heads * dim, shape)
        merged_shape = (*output_shape[:-1], self.num_heads * self.value_dim)
        self._build_dense("attention_output", output_shape[-1], merged_shape)
        self._build_positions()

    def _build_positions(self):
        self._check_heads_of_bias()
        if self.position_bias is not None and not self.position_bias.built:
            integers = [keras.KerasTensor((None,), "int32") for _ in range(3)]
            self.position_bias(*integers)
        if self.rotary_embedding is not None:
            self.rotary_embedding.build(
                (None, self.num_heads, None, self.key_dim)
            )

    def _check_heads_of_bias(self):
        # A user's own layer need not know how many there are.
        heads = getattr(self.position_bias, "num_heads", self.num_heads)
        if heads != self.num_heads:
            raise ValueError(
                "A position bias has values for each head of its attention "
                f"layer. Expected `position_bias` with num_heads="
                f"{self.num_heads}. Received: position_bias.num_heads={heads}"
            )

    def _split_heads(self, projected, dim):
        """`(b, t, h * d)` to `(b, h, t, d)`."""
        batch, length = keras.ops.shape(projected)[:2]
        heads = projected.shape[-1] // dim
        split = keras.ops.reshape(projected, (batch, length, heads, dim))
        return keras.ops.transpose(split, (0, 2, 1, 3))

    def _nothing(self, inputs):
        """A zero context, for no queries or no keys."""
        batch, length = keras.ops.shape(inputs)[:2]
        shape = (batch, self.num_heads, length, self.value_dim)
        return keras.ops.zeros(shape, self.compute_dtype)

    def _values(self, inputs):
        """Heads of values."""
        return self._split_heads(self.value(inputs), self.value_dim)

    def _repeated(self, heads):
        """Keys or values, each for all queries' heads that share it."""
        if self.num_key_value_heads == self.num_heads:
            return heads
        times = self.num_heads // self.num_key_value_heads
        return keras.ops.repeat(heads, times, axis=1)

    def _rotated_heads(self, projected, start_index=0, segments=None):
        """Heads of queries or keys, with rotary embeddings if there are any."""
        heads = self._split_heads(projected, self.key_dim)
        if self.rotary_embedding is None:
            return heads
        if segments is not None:
            return self.rotary_embedding(heads, positions=segments.positions)
        return self.rotary_embedding(heads, start_index=start_index)

    def _mask(self, mask, attached, inputs):
        """The bool mask of a call's inputs, or None."""
        mask = given_mask(mask, attached)
        return checks.mask("mask", mask, inputs.shape[:2])

    def _segments(self, segment_ids, shape):
        """The documents that are packed into rows, or None."""
        ids = checks.integers("segment_ids", segment_ids, shape)
        if ids is not None and getattr(self, "num_global_tokens", 0):
            raise ValueError(
                "Global tokens are the first of a row, which most of its "
                "documents must not see. Expected `segment_ids` or "
                "`num_global_tokens`, not both. Received: segment_ids.shape="
                f"{tuple(ids.shape)}, num_global_tokens="
                f"{self.num_global_tokens}"
            )
        return None if ids is None or 0 in shape else Segments.of(ids)

    def _bias(self):
        """The position bias as a pure function, which kernels differentiate."""
        if self.position_bias is None:
            return None
        function, values = pure_outputs(self.position_bias, self.position_bias)
        return PositionBias(function, values, self.num_heads)

    def _attention_dropout(self, training):
        """Dropout of attention weights for one call, or None."""
        if not training or not self.dropout:
            return None
        seed = self.seed_generator.next()
        return AttentionDropout(self.dropout, seed, self.shared_dropout)

    def _merge_heads(self, attended):
        """`(b, h, t, d)` to the layer's output `(b, t, e)`."""
        batch, _, length, _ = keras.ops.shape(attended)
        merged = keras.ops.reshape(
            keras.ops.transpose(attended, (0, 2, 1, 3)),
            (batch, length, self.num_heads * self.value_dim),
        )
        return self.attention_output(keras.ops.cast(merged, self.compute_dtype))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
            "shared_dropout": self.shared_dropout,
        }
