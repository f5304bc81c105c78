"""What a backbone accepts, and what follows from it."""

import math

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.lsh_arguments import DUPLICATES
from keras_reformer.layers.sublayers import without_marks
from keras_reformer.ops.attention.hashing import resolve_num_buckets

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
        "query_key_kernel_size",
    ),
    checks.count: (
        "lsh_num_chunks_before",
        "lsh_num_chunks_after",
        "local_num_chunks_before",
        "local_num_chunks_after",
    ),
    checks.rate: ("dropout", "lsh_dropout", "local_dropout"),
    checks.boolean: ("causal", "wrap", "center_hashes"),
    checks.seed: ("seed",),
}
# What follows from the scope: the published rule stays as published.
_BY_SCOPE = {
    "query_key_kernel_size": {"bucket": 2, "chunk": 1},
    "center_hashes": {"bucket": True, "chunk": False},
}
_MAY_BE_NONE = (
    "local_chunk_length",
    "feed_forward_chunk_length",
    "key_dim",
    "query_key_kernel_size",
    "center_hashes",
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
    checks.choice("duplicates", config["duplicates"], DUPLICATES)
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
    if config["duplicates"] == "importance" and config["center_hashes"] is None:
        # It knows the angles between tokens as they are.
        config["center_hashes"] = False
    for name, defaults in _BY_SCOPE.items():
        if config[name] is None:
            config[name] = defaults[config["scope"]]
    for kind in ("lsh", "local"):
        if config[f"{kind}_num_chunks_after"] is None:
            config[f"{kind}_num_chunks_after"] = 0 if config["causal"] else 1
    checks.choice(
        "position_embedding", config["position_embedding"], _POSITIONS
    )
    config["rotary_layers"] = _rotary_layers(config)
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


def _rotary_layers(config):
    has_local = "local" in config["attention_layers"]
    given = config["rotary_layers"]
    if given is None:
        return "local" if has_local else "all"
    checks.choice("rotary_layers", given, ("local", "all"))
    rotary = config["position_embedding"] == "rotary"
    if rotary and given == "local" and not has_local:
        raise ValueError(
            "There is no local attention to be rotary. Expected "
            "rotary_layers='all' or None, or 'local' among "
            "`attention_layers`. Received: "
            f"rotary_layers={given!r}, "
            f"attention_layers={config['attention_layers']}"
        )
    return given


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
