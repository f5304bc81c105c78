"""Models of one shape that differ in how they attend at a distance.

| kind | in the place of the LSH layers |
|---|---|
| `lsh` | the library's LSH attention as it is by default |
| `lsh-chunk` | the same with `scope="chunk"`, as published |
| `exact` | the exact attention that LSH attention approximates |
| `local` | one more local layer |
| `linear` | linear attention, whose state does not grow with the length |

All are `ReformerCausalLM`s: embeddings, local layers, feed-forward, streams,
head, loss and initial distributions are the same.
"""

import ast

import keras
from keras import ops

import keras_reformer
from keras_reformer.models.inputs import complete

KINDS = ("lsh", "lsh-chunk", "exact", "local", "linear")
OPTIONS = {
    "layers": (2, "reversible blocks"),
    "width": (64, "of embeddings and of each stream"),
    "heads": (2, "of attention"),
    "feed_forward": (0, "width inside, 0 for twice the width"),
    "chunk_length": (32, "tokens in a chunk of LSH attention"),
    "local_chunk_length": (16, "tokens in a chunk of local attention"),
    "num_hashes": (4, "rounds of hashing in training"),
    # A model made for long texts spreads short ones over as many buckets.
    "buckets": ("model", "number for the model's, or each text's, length"),
    # Longer texts than those of training have no rows in a table.
    "position_embedding": ("none", "as of ReformerBackbone, or none"),
    "position_bias": ("relative", "alibi, relative or none"),
    "model": ("", "more of its arguments, as key=value;key=value"),
}
_CHANGES = {
    "lsh-chunk": {"scope": "chunk"},
    "local": {"attention_layers": ("local",)},
}


def arguments(kind, options, vocabulary_size, max_length, seed):
    """What `ReformerBackbone` is made of."""
    return {
        "vocabulary_size": vocabulary_size,
        "num_layers": options.layers,
        "num_heads": options.heads,
        "hidden_dim": options.width,
        "intermediate_dim": options.feed_forward or 2 * options.width,
        "max_sequence_length": max_length,
        "chunk_length": options.chunk_length,
        "local_chunk_length": options.local_chunk_length,
        "num_hashes": options.num_hashes,
        "position_embedding": _or_none(options.position_embedding),
        "position_bias": _or_none(options.position_bias),
        "seed": seed,
        **key_values(options.model),
        **_CHANGES.get(kind, {}),
    }


def _or_none(name):
    return None if name == "none" else name


def key_values(text):
    """`"dropout=0.1;merge=mean"` as a dict, literals of Python as such."""
    found = {}
    for item in filter(None, text.split(";")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(
                "Arguments of the model are given as key=value;key=value. "
                f"Received: model={text!r}"
            )
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def causal_lm(kind, options, vocabulary_size, max_length, seed):
    """A `ReformerCausalLM` of a kind, initialized from the seed."""
    if kind not in KINDS:
        raise ValueError(f"Expected one of {KINDS}. Received: kind={kind!r}")
    keras.utils.set_random_seed(seed)
    backbone = keras_reformer.ReformerBackbone(
        **arguments(kind, options, vocabulary_size, max_length, seed)
    )
    if kind == "linear":
        backbone = LinearBackbone(backbone)
    model = keras_reformer.ReformerCausalLM(backbone=backbone)
    if kind == "exact":
        attend(model, 0)
    if options.buckets == "length":
        for layer in model.backbone.lsh_layers().values():
            layer.num_buckets = None
    return model


def with_length(trained, kind, options, length, seed):
    """A trained model's weights in a model for another length."""
    size = trained.backbone.vocabulary_size
    model = causal_lm(kind, options, size, length, seed)
    model.set_weights(trained.get_weights())
    return model


def hashes(kind):
    return kind.startswith("lsh")


def attend(model, rounds):
    """Sets how a model's LSH layers attend, of whatever kind it was.

    Args:
        model: with a `backbone`.
        rounds: int. Rounds of hashing, or 0 for what they approximate.
    """
    for layer in model.backbone.lsh_layers().values():
        longest = model.backbone.max_sequence_length
        layer.exact_below = 0 if rounds else longest
        layer.num_hashes = rounds or layer.num_hashes


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
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, True at valid tokens.

    Returns:
        Float tensor of shape `(batch, length, hidden_dim)`.

    Reference: [Katharopoulos et al., 2020](https://arxiv.org/abs/2006.16236),
    section 3.
    """

    def __init__(self, num_heads, key_dim, chunk_length=64, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.chunk_length = chunk_length

    def build(self, input_shape):
        width = self.num_heads * self.key_dim
        for name in ("query", "key", "value"):
            self._project(name, width, input_shape)
        self._project("output_projection", input_shape[-1], (None, None, width))

    def _project(self, name, width, input_shape):
        layer = keras.layers.Dense(
            width, use_bias=False, dtype=self.dtype_policy, name=name
        )
        layer.build(input_shape)
        setattr(self, name, layer)

    def call(self, inputs, mask=None):
        query, key, value = (
            self._heads(project(inputs))
            for project in (self.query, self.key, self.value)
        )
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

    def lsh_layers(self):
        return {}

    def get_config(self):
        return self.config


def _linear_block(block, config):
    attention = LinearAttention(
        config["num_heads"], config["key_dim"], name="linear_attention"
    )
    branch = keras_reformer.PreNormalization(
        attention,
        epsilon=config["epsilon"],
        dropout=config["dropout"],
        normalization=config["normalization"],
    )
    return keras_reformer.ReversibleBlock(branch, block.feed_forward)
