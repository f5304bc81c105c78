import math

import keras

from keras_reformer.layers import (
    AxialPositionEmbedding,
    Dropout,
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
    checks,
)
from keras_reformer.layers.reversible_block import stream_dtype
from keras_reformer.models.inputs import TokenInputs, token_inputs
from keras_reformer.ops.hashing import resolve_num_buckets


@keras.saving.register_keras_serializable(package="keras_reformer")
class ReformerBackbone(TokenInputs, keras.Model):
    """Token ids to hidden states by a Reformer's stack.

    Embeddings and axial positions go into a `ReversibleSequence` of blocks,
    attention and feed-forward each behind a normalization; the merged streams
    are normalized once more.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Number of reversible blocks.
        num_heads: int. Attention heads of each block.
        hidden_dim: int. Width of embeddings and of each residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        max_sequence_length: int. Greatest length; sets the position table
            and the number of buckets.
        attention_layers: tuple of `"local"` and `"lsh"`, cycled over the
            depth. Defaults to `("local", "lsh")`.
        key_dim: int. Size of each head's keys and values. Defaults to
            `hidden_dim // num_heads`.
        num_hashes: int. Hash rounds of LSH layers. Defaults to `4`.
        num_buckets: even int, list of them, or None for the number that
            `max_sequence_length` implies. Defaults to `None`.
        chunk_length: int. Chunk of LSH layers. Defaults to `64`.
        causal: bool. Whether a token sees only earlier ones. Defaults to
            `True`.
        scope: `"bucket"` or `"chunk"`, see `LSHSelfAttention`. Defaults to
            `"bucket"`.
        dropout: float in `[0, 1)`. Dropout of embeddings, attention weights,
            feed-forward and branch outputs. Defaults to `0.0`.
        recompute: bool. Whether the backward pass rebuilds activations.
            Defaults to `True`.
        local_chunk_length: int. Chunk of local layers. Defaults to
            `chunk_length`.
        lsh_num_chunks_before: int. Defaults to `1`.
        lsh_num_chunks_after: int. Defaults to 0 for causal models, else 1.
        local_num_chunks_before: int. Defaults to `1`.
        local_num_chunks_after: int. Defaults to 0 for causal models, else 1.
        wrap: bool. First and last chunks are neighbours. Defaults to `False`.
        activation: Activation of the feed-forward layers. Defaults to
            `"gelu"`.
        feed_forward_chunk_length: int. Positions that feed-forward layers
            compute at a time, or None for all. Defaults to `None`.
        epsilon: float. Added to variances in normalizations. Defaults to
            `1e-6`.
        position_embedding: `"axial"` or None. Defaults to `"axial"`.
        axial_shape: list of ints. Axes of the positions. Defaults to two
            near the square root of `max_sequence_length`.
        axial_dims: list of ints. Widths of the axes' tables. Defaults to a
            quarter for the first axis and the rest for the last.
        merge: `"concat"` or `"mean"` of the streams. Defaults to `"concat"`.
        seed: int. Seed of rotations and dropout. Defaults to `None`.
        dtype: dtype policy of the layers. Streams, norms and embeddings are
            float32 at least.
        **kwargs: Base model arguments, such as `name`.

    Call arguments:
        inputs: dict of `token_ids`, int `(batch, length)`, and optionally
            `padding_mask`, bool `(batch, length)`, True at valid tokens; or
            token ids alone.

    Returns:
        Float tensor `(batch, length, 2 * hidden_dim)`, or `hidden_dim` wide
        for `merge="mean"`.

    Raises:
        ValueError: if an argument is out of its range, or heads do not
            divide the width and no `key_dim` is given.

    Example:

    >>> backbone = keras_reformer.ReformerBackbone(
    ...     vocabulary_size=258, num_layers=2, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> backbone(keras.ops.ones((1, 300), dtype="int32")).shape
    TensorShape([1, 300, 64])

    Reference: [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451).
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        max_sequence_length,
        attention_layers=("local", "lsh"),
        key_dim=None,
        num_hashes=4,
        num_buckets=None,
        chunk_length=64,
        causal=True,
        scope="bucket",
        dropout=0.0,
        recompute=True,
        local_chunk_length=None,
        lsh_num_chunks_before=1,
        lsh_num_chunks_after=None,
        local_num_chunks_before=1,
        local_num_chunks_after=None,
        wrap=False,
        activation="gelu",
        feed_forward_chunk_length=None,
        epsilon=1e-6,
        position_embedding="axial",
        axial_shape=None,
        axial_dims=None,
        merge="concat",
        seed=None,
        dtype=None,
        **kwargs,
    ):
        config = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "kwargs", "dtype", "__class__")
        }
        config = _resolve(config)
        # === Layers ===
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        streams = stream_dtype(policy)
        token_embedding = keras.layers.Embedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.02),
            dtype=streams,
            name="token_embedding",
        )
        positions = _position_layer(config, streams)
        embedding_dropout = Dropout(
            dropout, seed=_seed(seed, 0), dtype=streams, name="dropout"
        )
        sequence = ReversibleSequence(
            [_block(config, index, policy) for index in range(num_layers)],
            merge=merge,
            recompute=recompute,
            dtype=policy,
            name="sequence",
        )
        normalization = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=streams, name="normalization"
        )

        # === Functional model ===
        inputs = token_inputs()
        x = token_embedding(inputs["token_ids"])
        if positions is not None:
            x = keras.layers.Add(dtype=streams, name="embedding")(
                [x, positions(x)]
            )
        x = embedding_dropout(x)
        x = sequence(x, mask=inputs["padding_mask"])
        outputs = normalization(x)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        # The Functional constructor ignores `dtype`.
        self.dtype_policy = policy
        self._config = config
        self.token_embedding = token_embedding
        self.position_embedding = positions
        self.sequence = sequence
        self.normalization = normalization

    @property
    def vocabulary_size(self):
        """Number of token ids."""
        return self._config["vocabulary_size"]

    @property
    def max_sequence_length(self):
        """Greatest length of the inputs."""
        return self._config["max_sequence_length"]

    def embed(self, token_ids):
        """What the stack gets at inference.

        Args:
            token_ids: Integer tensor of shape `(batch, length)`.

        Returns:
            Float tensor of shape `(batch, length, hidden_dim)`.
        """
        x = self.token_embedding(token_ids)
        if self.position_embedding is not None:
            x += self.position_embedding(x)
        return x

    def get_config(self):
        return {
            **self._config,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def _resolve(config):
    """Checks the arguments and fills in those that follow from others."""
    for name in (
        "vocabulary_size",
        "num_layers",
        "num_heads",
        "hidden_dim",
        "intermediate_dim",
        "max_sequence_length",
        "chunk_length",
    ):
        checks.positive_int(name, config[name])
    config["attention_layers"] = _check_attention(config["attention_layers"])
    if config["key_dim"] is None:
        config["key_dim"] = _key_dim(config)
    length = config["max_sequence_length"]
    if config["num_buckets"] is None:
        factors = resolve_num_buckets(
            length, config["chunk_length"], config["scope"]
        )
        config["num_buckets"] = list(factors)
    config["local_chunk_length"] = (
        config["local_chunk_length"] or config["chunk_length"]
    )
    for kind in ("lsh", "local"):
        if config[f"{kind}_num_chunks_after"] is None:
            config[f"{kind}_num_chunks_after"] = 0 if config["causal"] else 1
    checks.choice(
        "position_embedding", config["position_embedding"], ("axial", None)
    )
    checks.choice("merge", config["merge"], ("concat", "mean"))
    config["axial_shape"], config["axial_dims"] = _axes(config)
    return config


def _check_attention(attention_layers):
    if isinstance(attention_layers, str):
        attention_layers = (attention_layers,)
    attention_layers = list(attention_layers)
    if not attention_layers:
        checks.choice("attention_layers", attention_layers, ("local", "lsh"))
    for kind in attention_layers:
        checks.choice("attention_layers", kind, ("local", "lsh"))
    return attention_layers


def _key_dim(config):
    hidden_dim, num_heads = config["hidden_dim"], config["num_heads"]
    if hidden_dim % num_heads:
        raise ValueError(
            "`num_heads` must divide `hidden_dim` where `key_dim` is left "
            "out. Expected a divisor. Received: "
            f"hidden_dim={hidden_dim}, num_heads={num_heads}. Choose another "
            "number of heads or set `key_dim`."
        )
    return hidden_dim // num_heads


def _axes(config):
    length, hidden_dim = config["max_sequence_length"], config["hidden_dim"]
    shape, dims = config["axial_shape"], config["axial_dims"]
    if shape is None:
        last = 2 ** math.ceil(math.log2(math.sqrt(length)))
        shape = [-(-length // last), last]
    if dims is None:
        dims = [hidden_dim // 4, hidden_dim - hidden_dim // 4]
        if len(shape) != 2 or not dims[0]:
            rest = hidden_dim - hidden_dim // len(shape) * (len(shape) - 1)
            dims = [hidden_dim // len(shape)] * (len(shape) - 1) + [rest]
    if math.prod(shape) < length:
        raise ValueError(
            "The axes must have a place for every position. Expected "
            f"prod(axial_shape) >= max_sequence_length={length}. Received: "
            f"axial_shape={shape}, whose product is {math.prod(shape)}"
        )
    return list(shape), list(dims)


def _position_layer(config, dtype):
    if config["position_embedding"] is None:
        return None
    return AxialPositionEmbedding(
        config["axial_shape"],
        config["axial_dims"],
        dtype=dtype,
        name="position_embedding",
    )


def _block(config, index, policy):
    """One reversible block; each of its layers gets a seed of its own."""
    kinds = config["attention_layers"]
    kind = kinds[index % len(kinds)]
    seeds = [_seed(config["seed"], 4 * index + step) for step in range(1, 5)]
    make = _lsh_layer if kind == "lsh" else _local_layer
    feed_forward = FeedForward(
        config["intermediate_dim"],
        activation=config["activation"],
        dropout=config["dropout"],
        chunk_length=config["feed_forward_chunk_length"],
        seed=seeds[1],
        dtype=policy,
        name="feed_forward",
    )

    def branch(layer, seed, name):
        return PreNormalization(
            layer,
            epsilon=config["epsilon"],
            dropout=config["dropout"],
            seed=seed,
            dtype=policy,
            name=name,
        )

    return ReversibleBlock(
        branch(make(config, seeds[0], policy), seeds[2], "attention"),
        branch(feed_forward, seeds[3], "feed_forward"),
        dtype=policy,
        name=f"block_{index}",
    )


def _lsh_layer(config, seed, policy):
    return LSHSelfAttention(
        num_hashes=config["num_hashes"],
        num_buckets=config["num_buckets"],
        chunk_length=config["chunk_length"],
        num_chunks_before=config["lsh_num_chunks_before"],
        num_chunks_after=config["lsh_num_chunks_after"],
        scope=config["scope"],
        name="lsh_self_attention",
        **_attention_arguments(config, seed, policy),
    )


def _local_layer(config, seed, policy):
    return LocalSelfAttention(
        chunk_length=config["local_chunk_length"],
        num_chunks_before=config["local_num_chunks_before"],
        num_chunks_after=config["local_num_chunks_after"],
        name="local_self_attention",
        **_attention_arguments(config, seed, policy),
    )


def _attention_arguments(config, seed, policy):
    return {
        "num_heads": config["num_heads"],
        "key_dim": config["key_dim"],
        "causal": config["causal"],
        "wrap": config["wrap"],
        "dropout": config["dropout"],
        "seed": seed,
        "dtype": policy,
    }


def _seed(seed, index):
    """A seed for one of the model's layers, or None for a fresh one."""
    return None if seed is None else seed * 1000 + index
