import keras

from keras_reformer.layers import checks


class ChunkedSelfAttention(keras.layers.Layer):
    """What the self-attention layers over chunks share: all but attention.

    Arguments, projections of inputs into heads and back, and the config. A
    subclass names its projections into heads in `_projections` and attends
    in its own `call`.
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
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
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
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        checks.sequence_shape(self.name, input_shape)
        for name in self._projections:
            dim = self.value_dim if name == "value" else self.key_dim
            setattr(self, name, self._dense(self.num_heads * dim, name))
            getattr(self, name).build(input_shape)
        self.attention_output = self._dense(
            input_shape[-1], "attention_output"
        )
        self.attention_output.build(
            (*input_shape[:-1], self.num_heads * self.value_dim)
        )

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            # An initializer with a seed would give every projection the same
            # weights; without one a copy draws its own.
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )

    def _split_heads(self, projected):
        """`(b, t, h * d)` to `(b, h, t, d)`."""
        length = keras.ops.shape(projected)[1]
        dim = projected.shape[-1] // self.num_heads
        split = keras.ops.reshape(
            projected, (-1, length, self.num_heads, dim)
        )
        return keras.ops.transpose(split, (0, 2, 1, 3))

    def _merge_heads(self, attended):
        """`(b, h, t, d)` to the layer's output `(b, t, e)`."""
        length = keras.ops.shape(attended)[2]
        merged = keras.ops.reshape(
            keras.ops.transpose(attended, (0, 2, 1, 3)),
            (-1, length, self.num_heads * self.value_dim),
        )
        return self.attention_output(
            keras.ops.cast(merged, self.compute_dtype)
        )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

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
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "bias_regularizer": keras.regularizers.serialize(
                self.bias_regularizer
            ),
            "kernel_constraint": keras.constraints.serialize(
                self.kernel_constraint
            ),
            "bias_constraint": keras.constraints.serialize(
                self.bias_constraint
            ),
            "seed": self.seed,
        }
