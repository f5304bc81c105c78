"""Linear attention in the place of LSH attention: a state of fixed size."""

import keras
from keras import ops

import keras_reformer
from keras_reformer.layers.short_convolution import ShortConvolution
from keras_reformer.models.inputs import complete


@keras.saving.register_keras_serializable(package="benchmarks")
class LinearAttention(keras.layers.Layer):
    """Causal attention by a state of fixed size, a plain reference.

    `y_i = sum_{j <= i} (f(q_i) . f(k_j)) v_j / sum_{j <= i} f(q_i) . f(k_j)`
    with `f(x) = elu(x) + 1`. Computed in chunks: within a chunk as masked
    products, before it from the sum of `f(k) v^T` over earlier chunks. It has
    no position of its own; local layers tell it what is near.

    Args:
        num_heads: int. Number of attention heads.
        key_dim: int. Size of each head's queries, keys and values.
        chunk_length: int. Positions that are computed at a time. Changes
            nothing but time and memory. Defaults to `64`.
        kernel_size: int. Positions that queries and keys are made of, by a
            `ShortConvolution` each, as in LSH layers. Defaults to `1`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, True at valid tokens.

    Returns:
        Float tensor of shape `(batch, length, hidden_dim)`.

    Reference: [Katharopoulos et al., 2020](https://arxiv.org/abs/2006.16236),
    section 3.
    """

    def __init__(
        self, num_heads, key_dim, chunk_length=64, kernel_size=1, **kwargs
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.chunk_length = chunk_length
        self.kernel_size = kernel_size

    def build(self, input_shape):
        width = self.num_heads * self.key_dim
        for name in ("query", "key", "value"):
            self._project(name, width, input_shape)
        self._project("output_projection", input_shape[-1], (None, None, width))
        for name in ("query", "key"):
            convolution = ShortConvolution(
                self.kernel_size, dtype=self.dtype_policy
            )
            convolution.build((*input_shape[:-1], width))
            setattr(self, f"{name}_convolution", convolution)

    def _project(self, name, width, input_shape):
        layer = keras.layers.Dense(
            width, use_bias=False, dtype=self.dtype_policy, name=name
        )
        layer.build(input_shape)
        setattr(self, name, layer)

    def call(self, inputs, mask=None):
        query = self.query_convolution(self.query(inputs), mask=mask)
        key = self.key_convolution(self.key(inputs), mask=mask)
        query, key, value = map(self._heads, (query, key, self.value(inputs)))
        query, key = ops.elu(query) + 1, ops.elu(key) + 1
        if mask is not None:
            key *= ops.cast(mask, key.dtype)[:, None, :, None]
        attended = linear_attention(query, key, value, self.chunk_length)
        attended = ops.transpose(attended, (0, 2, 1, 3))
        merged = ops.reshape(
            attended,
            (*ops.shape(inputs)[:2], self.num_heads * self.key_dim),
        )
        return self.output_projection(ops.cast(merged, self.compute_dtype))

    def _heads(self, x):
        batch, length = ops.shape(x)[:2]
        shape = (batch, length, self.num_heads, self.key_dim)
        x = ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))
        # Sums over the whole text: in half precision they would stand still.
        return ops.cast(x, "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "chunk_length": self.chunk_length,
            "kernel_size": self.kernel_size,
        }


def linear_attention(query, key, value, chunk_length):
    """Causal attention with the score `query . key`, which is positive.

    Args:
        query: Tensor of shape `(batch, heads, length, dim)`.
        key: Tensor of the same shape.
        value: Tensor of the same shape.
        chunk_length: int.

    Returns:
        Tensor of the same shape. Rows whose scores are all zero are zero.
    """
    batch, heads, length, dim = ops.shape(query)
    padding = -length % chunk_length
    ones = ops.ones_like(value[..., :1])
    # The last column adds up the scores.
    value = ops.concatenate([value, ones], axis=-1)

    def chunks(x):
        x = ops.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0)))
        return ops.reshape(x, (batch, heads, -1, chunk_length, x.shape[-1]))

    query, key, value = map(chunks, (query, key, value))
    states = ops.matmul(ops.swapaxes(key, -1, -2), value)
    before = ops.cumsum(states, axis=2)[:, :, :-1]
    before = ops.pad(before, ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    scores *= ops.tril(ops.ones((chunk_length, chunk_length), query.dtype))
    total = ops.matmul(query, before) + ops.matmul(scores, value)
    total = ops.reshape(total, (batch, heads, -1, dim + 1))[:, :, :length]
    return ops.divide_no_nan(total[..., :dim], total[..., dim:])


class LinearBackbone(keras.Model):
    """A backbone's layers, linear attention in the place of LSH attention."""

    def __init__(self, backbone):
        super().__init__(dtype=backbone.dtype_policy)
        self.config = config = backbone.get_config()
        self.vocabulary_size = backbone.vocabulary_size
        self.max_sequence_length = backbone.max_sequence_length
        self.token_embedding = backbone.token_embedding
        self.position_embedding = backbone.position_embedding
        self.dropout = keras_reformer.Dropout(
            config["dropout"], seed=config["seed"]
        )
        hashed = backbone.lsh_layers()
        self.sequence = keras_reformer.ReversibleSequence(
            [
                _linear_block(block, config) if index in hashed else block
                for index, block in enumerate(backbone.sequence.blocks)
            ],
            merge=config["merge"],
            recompute=config["recompute"],
            dtype=backbone.dtype_policy,
        )
        self.normalization = backbone.normalization

    def call(self, inputs, training=None, mask=None):
        return self.normalization(
            self.before_normalization(inputs, training, mask)
        )

    def before_normalization(self, inputs, training=None, mask=None):
        inputs = complete(inputs, mask)
        x = self.token_embedding(inputs["token_ids"])
        if self.position_embedding is not None:
            x += self.position_embedding(x)
        x = self.dropout(x, training=training)
        return self.sequence(x, mask=inputs["padding_mask"], training=training)

    def complete_inputs(self, inputs, mask=None):
        return complete(inputs, mask)

    @property
    def output_shape(self):
        streams = 1 if self.config["merge"] == "mean" else 2
        return (None, None, streams * self.config["hidden_dim"])

    def lsh_layers(self):
        return {}

    def get_config(self):
        return self.config


def _linear_block(block, config):
    attention = LinearAttention(
        config["num_heads"],
        config["key_dim"],
        kernel_size=config["query_key_kernel_size"],
        name="linear_attention",
    )
    branch = keras_reformer.PreNormalization(
        attention,
        epsilon=config["epsilon"],
        dropout=config["dropout"],
        normalization=config["normalization"],
    )
    return keras_reformer.ReversibleBlock(branch, block.feed_forward)
