"""From a backbone's arguments to its layers."""

import math
import random
from typing import NamedTuple

import keras

from keras_reformer.layers import (
    AlibiBias,
    AxialPositionEmbedding,
    Dropout,
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    RelativePositionBias,
    ReversibleBlock,
    ReversibleSequence,
    RotaryEmbedding,
    SinePositionEncoding,
    checks,
)
from keras_reformer.layers.pre_normalization import make_normalization
from keras_reformer.layers.reversible_block import stream_dtype
from keras_reformer.layers.sublayers import without_marks
from keras_reformer.models.padding import (
    CutToLength,
    PadToMultiple,
    published_multiple,
)
from keras_reformer.ops.hashing import resolve_num_buckets

_POSITIONS = ("axial", "learned", "sinusoidal", "rotary", None)
_BIASES = ("alibi", "relative", None)
# Under the names that they have here, which layers do not know.
_CHECKS = {
    checks.positive_int: (
        "vocabulary_size",
        "num_layers",
        "num_heads",
        "hidden_dim",
        "intermediate_dim",
        "max_sequence_length",
        "chunk_length",
        "local_chunk_length",
        "feed_forward_chunk_length",
        "key_dim",
    ),
    checks.count: (
        "lsh_num_chunks_before",
        "lsh_num_chunks_after",
        "local_num_chunks_before",
        "local_num_chunks_after",
    ),
    checks.rate: ("lsh_dropout", "local_dropout"),
    checks.boolean: ("causal", "wrap"),
    checks.seed: ("seed",),
}
_MAY_BE_NONE = (
    "local_chunk_length",
    "feed_forward_chunk_length",
    "key_dim",
    "lsh_num_chunks_after",
    "local_num_chunks_after",
    "lsh_dropout",
    "local_dropout",
)


def resolve(config):
    """Checks the arguments and fills in those that follow from others."""
    for check, names in _CHECKS.items():
        for name in names:
            if config[name] is not None or name not in _MAY_BE_NONE:
                check(name, config[name])
    checks.choice("scope", config["scope"], ("bucket", "chunk"))
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
        "position_embedding", config["position_embedding"], _POSITIONS
    )
    checks.choice("position_bias", config["position_bias"], _BIASES)
    checks.choice("merge", config["merge"], ("concat", "mean"))
    if config["position_embedding"] == "axial":
        config["axial_shape"], config["axial_dims"] = _axes(config)
    else:
        _check_no_axes(config)
    for kind in ("initializer", "regularizer"):
        config[f"kernel_{kind}"] = _serialized(kind, config[f"kernel_{kind}"])
    return config


def _serialized(kind, value):
    """The config of an initializer or a regularizer, if it has one."""
    name, module = f"kernel_{kind}", getattr(keras, f"{kind}s")
    default = {"initializer": "glorot_uniform"}.get(kind)
    given = default if value is None else value
    config = module.serialize(getattr(checks, kind)(name, given))
    try:
        module.get(config)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The layers of a model are made of its config, and `{name}` has "
            "none. Expected a name or an object that Keras can save. "
            f"Received: {name}={value!r}"
        ) from error
    return without_marks(config)


def _check_no_axes(config):
    for name in ("axial_shape", "axial_dims"):
        if config[name] is not None:
            raise ValueError(
                f"`{name}` is for axial positions. Expected None, or "
                f"position_embedding='axial'. Received: {name}="
                f"{config[name]}, position_embedding="
                f"{config['position_embedding']!r}"
            )


def _check_attention(attention_layers):
    if isinstance(attention_layers, str):
        attention_layers = (attention_layers,)
    if not isinstance(attention_layers, (list, tuple)) or not attention_layers:
        checks.choice("attention_layers", attention_layers, ("local", "lsh"))
    for kind in attention_layers:
        checks.choice("attention_layers", kind, ("local", "lsh"))
    return list(attention_layers)


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
    if shape is not None:
        shape = checks.positive_ints("axial_shape", shape)
    if dims is not None:
        dims = checks.positive_ints("axial_dims", dims)
    if shape is None:
        last = 2 ** math.ceil(math.log2(math.sqrt(length)))
        shape = [-(-length // last), last]
    if dims is None:
        dims = [hidden_dim // 4, hidden_dim - hidden_dim // 4]
        if len(shape) != 2 or not dims[0]:
            rest = hidden_dim - hidden_dim // len(shape) * (len(shape) - 1)
            dims = [hidden_dim // len(shape)] * (len(shape) - 1) + [rest]
    if len(dims) != len(shape) or sum(dims) != hidden_dim:
        raise ValueError(
            "Each axis has a table, and their widths add up to that of the "
            f"embeddings. Expected {len(shape)} widths whose sum is "
            f"hidden_dim={hidden_dim}. Received: axial_shape={shape}, "
            f"axial_dims={dims}"
        )
    if math.prod(shape) < length:
        raise ValueError(
            "The axes must have a place for every position. Expected "
            f"prod(axial_shape) >= max_sequence_length={length}. Received: "
            f"axial_shape={shape}, whose product is {math.prod(shape)}"
        )
    return list(shape), list(dims)


class BackboneLayers(NamedTuple):
    """The layers of a backbone, in the order in which data meets them.

    None where a backbone does without. The methods take symbolic tensors as
    well as others: they make the Functional graph, and they are what a call
    of the model runs.
    """

    token_embedding: keras.layers.Layer
    position_embedding: keras.layers.Layer | None
    add: keras.layers.Layer | None
    dropout: keras.layers.Layer
    pad: keras.layers.Layer | None
    cut: keras.layers.Layer | None
    sequence: keras.layers.Layer
    normalization: keras.layers.Layer

    def embed(self, inputs, start_index=0):
        """Embeddings of complete inputs and, added to them, positions."""
        x = inputs.get("token_embeddings")
        if x is None:
            x = self.token_embedding(inputs["token_ids"])
        if self.position_embedding is None:
            return x
        positions = self.position_embedding(x, start_index=start_index)
        return self.add([x, positions])

    def before_normalization(self, inputs, **options):
        """What the last layer gets for complete inputs.

        Args:
            inputs: what `inputs.complete` returns.
            **options: `training`, where Keras's call context does not say.
        """
        x = self.dropout(self.embed(inputs), **options)
        padded, mask = self._padded(x, inputs["padding_mask"])
        return self._cut(self.sequence(padded, mask=mask, **options), x)

    def prefill(self, inputs, capacity):
        """The outputs at inference, and the cache of the stack."""
        x = self.embed(inputs)
        padded, mask = self._padded(x, inputs["padding_mask"])
        outputs, cache = self.sequence.prefill(padded, mask, capacity)
        return self.normalization(self._cut(outputs, x)), cache

    def _padded(self, x, mask):
        return (x, mask) if self.pad is None else self.pad(x, mask)

    def _cut(self, outputs, like):
        return outputs if self.pad is None else self.cut(outputs, like)


def make_layers(config, policy):
    """Layers for a resolved config; nothing is connected yet."""
    streams = stream_dtype(policy)
    positions = _position_layer(config, streams)
    pad = _pad_layer(config, streams)
    return BackboneLayers(
        keras.layers.ReversibleEmbedding(
            config["vocabulary_size"],
            config["hidden_dim"],
            embeddings_initializer=keras.initializers.RandomNormal(0.0, 1.0),
            reverse_dtype=keras.dtype_policies.get(policy).compute_dtype,
            dtype=streams,
            name="token_embedding",
        ),
        positions,
        positions and keras.layers.Add(dtype=streams, name="embedding"),
        Dropout(
            config["dropout"],
            shared_axes=1 if config["shared_dropout"] else None,
            seed=_seed(config["seed"], 0),
            dtype=streams,
            name="dropout",
        ),
        pad,
        pad and CutToLength(dtype=streams, name="cut"),
        ReversibleSequence(
            [
                _block(config, index, policy)
                for index in range(config["num_layers"])
            ],
            merge=config["merge"],
            recompute=config["recompute"],
            dtype=policy,
            name="sequence",
        ),
        make_normalization(config["normalization"], config["epsilon"], streams),
    )


def _position_layer(config, dtype):
    """What makes positions to add to embeddings, or None."""
    kind, name = config["position_embedding"], "position_embedding"
    if kind == "sinusoidal":
        return SinePositionEncoding(dtype=dtype, name=name)
    if kind not in ("axial", "learned"):
        return None
    shape, dims = config["axial_shape"], config["axial_dims"]
    if kind == "learned":
        # A learned table is a grid of one axis.
        shape, dims = [config["max_sequence_length"]], [config["hidden_dim"]]
    return AxialPositionEmbedding(
        shape,
        dims,
        embeddings_initializer=keras.initializers.RandomNormal(0.0, 1.0),
        dtype=dtype,
        name=name,
    )


def _pad_layer(config, dtype):
    multiple, above = published_multiple(config)
    if multiple is None:
        return None
    return PadToMultiple(multiple, above, dtype=dtype, name="pad")


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
        name="feed_forward",
        **_common_arguments(config, seeds[1], policy),
    )
    # Both branches draw alike, so that whole blocks are dropped.
    depth_seed = random.randint(1, 10**9) if seeds[0] is None else seeds[0]

    def branch(layer, seed, name):
        return PreNormalization(
            layer,
            epsilon=config["epsilon"],
            dropout=config["dropout"],
            seed=seed,
            normalization=config["normalization"],
            shared_dropout=config["shared_dropout"],
            stochastic_depth=config["stochastic_depth"],
            stochastic_depth_seed=depth_seed,
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
        **_attention_arguments(config, "lsh", seed, policy),
    )


def _local_layer(config, seed, policy):
    return LocalSelfAttention(
        chunk_length=config["local_chunk_length"],
        num_chunks_before=config["local_num_chunks_before"],
        num_chunks_after=config["local_num_chunks_after"],
        name="local_self_attention",
        **_attention_arguments(config, "local", seed, policy),
    )


def _attention_arguments(config, kind, seed, policy):
    dropout = config[f"{kind}_dropout"]
    return {
        "num_heads": config["num_heads"],
        "key_dim": config["key_dim"],
        "causal": config["causal"],
        "wrap": config["wrap"],
        "dropout": config["dropout"] if dropout is None else dropout,
        "position_bias": _bias_layer(config, policy),
        "rotary_embedding": _rotary_layer(config, policy),
        **_common_arguments(config, seed, policy),
    }


def _common_arguments(config, seed, policy):
    """What layers made of projections take."""
    return {
        "shared_dropout": config["shared_dropout"],
        "kernel_initializer": config["kernel_initializer"],
        "kernel_regularizer": config["kernel_regularizer"],
        "seed": seed,
        "dtype": policy,
    }


def _bias_layer(config, policy):
    if config["position_bias"] is None:
        return None
    options = {"dtype": policy, "name": "position_bias"}
    if config["position_bias"] == "alibi":
        return AlibiBias(config["num_heads"], **options)
    return RelativePositionBias(
        config["num_heads"], causal=config["causal"], **options
    )


def _rotary_layer(config, policy):
    if config["position_embedding"] != "rotary":
        return None
    return RotaryEmbedding(dtype=policy, name="rotary_embedding")


def _seed(seed, index):
    """A seed for one of the model's layers, or None for a fresh one."""
    return None if seed is None else seed * 1000 + index
