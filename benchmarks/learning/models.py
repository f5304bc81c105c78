"""Models of one shape that differ in how they attend at a distance.

| kind | in the place of the LSH layers |
|---|---|
| `lsh` | the library's LSH attention as it is by default |
| `lsh-chunk` | the same with `scope="chunk"`, as published |
| `exact` | the exact attention that LSH attention approximates |
| `local` | one more local layer |
| `linear` | linear attention, whose state does not grow with the length |

A number behind it, as in `lsh-2`, is that of rounds in training. Then may
follow `-uncentered` (`center_hashes=False`), `-unconvolved`
(`query_key_kernel_size=1`) and `-plain` (ordinary backpropagation,
`recompute=False`), in this order.

Embeddings, local layers, feed-forward, streams, head, loss and initial
distributions are the same.
"""

import ast
import re

import keras
from keras import ops

import keras_reformer
from keras_reformer.models.inputs import complete

KINDS = ("lsh", "lsh-chunk", "exact", "local", "linear")
# Without what makes LSH attention learn, to see what it is good for.
_WITHOUT = {
    "-uncentered": {"center_hashes": False},
    "-unconvolved": {"query_key_kernel_size": 1},
    "-plain": {"recompute": False},
}
OPTIONS = {
    "layers": (2, "reversible blocks"),
    "width": (64, "of embeddings and of each stream"),
    "heads": (2, "of attention"),
    "feed_forward": (0, "width inside, 0 for twice the width"),
    "attention": ("local,lsh", "in turn, over the blocks"),
    "chunk_length": (32, "tokens in a chunk of LSH attention"),
    "local_chunk_length": (16, "tokens in a chunk of local attention"),
    "num_hashes": (4, "rounds of hashing in training"),
    "duplicates": ("count", "how pairs that rounds share count"),
    # A model made for long texts spreads short ones over as many buckets.
    "buckets": ("model", "number for the model's, or each text's, length"),
    # Longer texts than those of training have no rows in a table.
    "position_embedding": (
        "local-rotary",
        "local-rotary: rotary, in local attention alone; none; or another "
        "one of ReformerBackbone",
    ),
    "position_bias": ("none", "alibi, relative or none"),
    "model": ("", "more of its arguments, as key=value;key=value"),
}


def parse_kind(kind):
    """`"lsh-chunk-2-plain"` as one of `KINDS` and arguments of a backbone."""
    pattern = rf"({'|'.join(sorted(KINDS, key=len, reverse=True))})"
    endings = "".join(f"({ending})?" for ending in _WITHOUT)
    found = re.fullmatch(rf"{pattern}(?:-(\d+))?{endings}", kind)
    if not found:
        raise ValueError(
            f"Expected one of {KINDS}, perhaps with a number of rounds and "
            f"of {tuple(_WITHOUT)} behind it. Received: kind={kind!r}"
        )
    base, rounds, *endings = found.groups()
    changes = {
        "lsh-chunk": {"scope": "chunk"},
        "local": {"attention_layers": ("local",)},
    }.get(base, {})
    if rounds:
        changes["num_hashes"] = int(rounds)
    for ending in filter(None, endings):
        changes |= _WITHOUT[ending]
    return base, changes


def arguments(kind, options, vocabulary_size, max_length, seed, **more):
    """What `ReformerBackbone` is made of."""
    positions = options.position_embedding.removeprefix("local-")
    return {
        "vocabulary_size": vocabulary_size,
        "num_layers": options.layers,
        "num_heads": options.heads,
        "hidden_dim": options.width,
        "intermediate_dim": options.feed_forward or 2 * options.width,
        "max_sequence_length": max_length,
        "attention_layers": tuple(options.attention.split(",")),
        "chunk_length": options.chunk_length,
        "local_chunk_length": options.local_chunk_length,
        "num_hashes": options.num_hashes,
        "duplicates": options.duplicates,
        "position_embedding": _or_none(positions),
        "position_bias": _or_none(options.position_bias),
        "seed": seed,
        **more,
        **key_values(options.model),
        **parse_kind(kind)[1],
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


def backbone(kind, options, vocabulary_size, max_length, seed, **more):
    """A backbone of a kind, initialized from the seed.

    Args:
        kind: str, see above.
        options: with those of `OPTIONS`.
        vocabulary_size: int.
        max_length: int. Greatest length.
        seed: int.
        **more: further arguments of `ReformerBackbone`.
    """
    base, _ = parse_kind(kind)
    keras.utils.set_random_seed(seed)
    made = keras_reformer.ReformerBackbone(
        **arguments(kind, options, vocabulary_size, max_length, seed, **more)
    )
    for layer in made.lsh_layers().values():
        if options.buckets == "length":
            layer.num_buckets = None
        if options.position_embedding == "local-rotary":
            layer.rotary_embedding = None
    if base == "exact":
        attend(made, 0)
    return LinearBackbone(made) if base == "linear" else made


def causal_lm(*arguments, **more):
    """A `ReformerCausalLM` of the `backbone` of these arguments."""
    return keras_reformer.ReformerCausalLM(
        backbone=backbone(*arguments, **more)
    )


def with_length(trained, kind, options, length, seed):
    """A trained model's weights in a model for another length."""
    size = trained.backbone.vocabulary_size
    model = causal_lm(kind, options, size, length, seed)
    model.set_weights(trained.get_weights())
    return model


def hashes(kind):
    """Whether a model of the kind was trained with LSH attention."""
    return kind.startswith("lsh")


def attend(backbone, rounds):
    """Sets how the LSH layers attend, of whatever kind the model was.

    Args:
        backbone: with `lsh_layers`.
        rounds: int. Rounds of hashing, or 0 for what they approximate.
    """
    for layer in backbone.lsh_layers().values():
        longest = backbone.max_sequence_length
        layer.exact_below = 0 if rounds else longest
        layer.num_hashes = rounds or layer.num_hashes


def evaluate(model, rounds, batch, batch_size, metrics=("accuracy",), **loss):
    """Metrics of a trained model on `(x, y)` or `(x, y, weights)`."""
    attend(model.backbone, rounds)
    model.compile(metrics=list(metrics), jit_compile=True, **loss)
    return model.evaluate(
        *batch[:2],
        sample_weight=batch[2] if len(batch) > 2 else None,
        batch_size=batch_size,
        verbose=0,
        return_dict=True,
    )


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
