"""What a backbone is made of: checked arguments, and what follows from them."""

import dataclasses
import math
from typing import Any

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.lsh_arguments import DUPLICATES
from keras_reformer.layers.sublayers import without_marks
from keras_reformer.ops.attention.hashing import resolve_num_buckets


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReformerConfig:
    """The arguments of a `ReformerBackbone`, whose docstring describes them.

    Nothing has a default here: those stand in the backbone's signature.
    """

    vocabulary_size: int
    num_layers: int
    num_heads: int
    hidden_dim: int
    intermediate_dim: int
    max_sequence_length: int
    attention_layers: tuple[str, ...]
    key_dim: int | None
    num_hashes: int
    num_buckets: int | tuple[int, ...] | None
    chunk_length: int
    causal: bool
    scope: str
    dropout: float
    recompute: bool
    local_chunk_length: int | None
    lsh_num_chunks_before: int
    lsh_num_chunks_after: int | None
    local_num_chunks_before: int
    local_num_chunks_after: int | None
    wrap: bool
    activation: Any
    feed_forward_chunk_length: int | None
    epsilon: float
    position_embedding: str | None
    axial_shape: tuple[int, ...] | None
    axial_dims: tuple[int, ...] | None
    merge: str
    lsh_dropout: float | None
    local_dropout: float | None
    position_bias: str | None
    normalization: str
    shared_dropout: bool
    stochastic_depth: float
    kernel_initializer: Any
    kernel_regularizer: Any
    query_key_kernel_size: int | None
    center_hashes: bool | None
    duplicates: str
    rotary_layers: str | None
    num_key_value_heads: int | None
    num_global_tokens: int
    seed: int | None

    def resolve(self) -> "ReformerConfig":
        """Checks the arguments and fills in those that follow from others.

        Raises:
            ValueError: if an argument is out of its range, or arguments do
                not go together.
        """
        self._check()
        kinds = _attention_layers(self.attention_layers)
        config = dataclasses.replace(self, attention_layers=kinds)
        axial_shape, axial_dims = _axes(config)
        return dataclasses.replace(
            config,
            key_dim=_key_dim(config),
            num_buckets=_num_buckets(config),
            local_chunk_length=config.local_chunk_length or config.chunk_length,
            lsh_num_chunks_after=_chunks_after(config, "lsh"),
            local_num_chunks_after=_chunks_after(config, "local"),
            query_key_kernel_size=_query_key_kernel_size(config),
            center_hashes=_center_hashes(config),
            rotary_layers=_rotary_layers(config),
            num_key_value_heads=checks.num_key_value_heads(
                config.num_key_value_heads, config.num_heads
            ),
            axial_shape=axial_shape,
            axial_dims=axial_dims,
            kernel_initializer=_serialized(config, "initializer"),
            kernel_regularizer=_serialized(config, "regularizer"),
        )

    def _check(self):
        """Refuses values that no layer would take, by the names used here."""
        for check, names in _CHECKS.items():
            for name in names:
                value = getattr(self, name)
                if value is not None or name not in _MAY_BE_NONE:
                    check(name, value)
        for name, choices in _CHOICES.items():
            checks.choice(name, getattr(self, name), choices)

    def as_dict(self) -> dict[str, Any]:
        """The arguments by name, as `get_config` returns them."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def check_base_arguments(kwargs):
    """Refuses what a Functional model would take and ignore."""
    unknown = set(kwargs) - {"name", "trainable", "sublayers"}
    if unknown:
        raise ValueError(
            "Received arguments that a backbone does not have. Expected those "
            f"of `ReformerBackbone`. Received: {', '.join(sorted(unknown))}"
        )


_CHOICES = {
    "scope": ("bucket", "chunk"),
    "duplicates": DUPLICATES,
    "position_embedding": ("axial", "learned", "sinusoidal", "rotary", None),
    "position_bias": ("alibi", "relative", None),
    "merge": ("concat", "mean"),
}
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
        "num_global_tokens",
    ),
    checks.rate: ("dropout", "lsh_dropout", "local_dropout"),
    checks.boolean: ("causal", "wrap", "center_hashes"),
    checks.seed: ("seed",),
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


def _attention_layers(given):
    kinds = (given,) if isinstance(given, str) else given
    if not isinstance(kinds, (list, tuple)) or not kinds:
        checks.choice("attention_layers", kinds, ("local", "lsh"))
    for kind in kinds:
        checks.choice("attention_layers", kind, ("local", "lsh"))
    return tuple(kinds)


def _key_dim(config):
    if config.key_dim is not None:
        return config.key_dim
    if config.hidden_dim % config.num_heads:
        raise ValueError(
            "`num_heads` must divide `hidden_dim` where `key_dim` is left "
            "out. Expected a divisor. Received: "
            f"hidden_dim={config.hidden_dim}, num_heads={config.num_heads}. "
            "Choose another number of heads or set `key_dim`."
        )
    return config.hidden_dim // config.num_heads


def _num_buckets(config):
    """Never from the length of inputs, so that all of them hash alike."""
    given = config.num_buckets
    if given is None:
        return resolve_num_buckets(
            config.max_sequence_length, config.chunk_length, config.scope
        )
    return tuple(given) if isinstance(given, list) else given


def _chunks_after(config, kind):
    given = getattr(config, f"{kind}_num_chunks_after")
    if given is not None:
        return given
    return 0 if config.causal else 1


def _query_key_kernel_size(config):
    if config.query_key_kernel_size is not None:
        return config.query_key_kernel_size
    # The published rule stays as published.
    return 2 if config.scope == "bucket" else 1


def _center_hashes(config):
    if config.center_hashes is not None:
        return config.center_hashes
    # `"importance"` takes the angles between tokens as they are.
    return config.scope == "bucket" and config.duplicates != "importance"


def _rotary_layers(config):
    has_local = "local" in config.attention_layers
    given = config.rotary_layers
    if given is None:
        return "local" if has_local else "all"
    checks.choice("rotary_layers", given, ("local", "all"))
    rotary = config.position_embedding == "rotary"
    if rotary and given == "local" and not has_local:
        raise ValueError(
            "There is no local attention to be rotary. Expected "
            "rotary_layers='all' or None, or 'local' among "
            "`attention_layers`. Received: "
            f"rotary_layers={given!r}, "
            f"attention_layers={list(config.attention_layers)}"
        )
    return given


def _axes(config):
    """Shape and widths of axial positions; None and None of others."""
    shape, dims = config.axial_shape, config.axial_dims
    if config.position_embedding != "axial":
        _check_no_axes(config)
        return None, None
    if shape is not None:
        shape = checks.positive_ints("axial_shape", shape)
    if dims is not None:
        dims = checks.positive_ints("axial_dims", dims)
    if shape is None:
        shape = _default_axial_shape(config.max_sequence_length)
    if dims is None:
        dims = _default_axial_dims(config.hidden_dim, len(shape))
    _check_axes(config, shape, dims)
    return tuple(shape), tuple(dims)


def _default_axial_shape(length):
    """Two axes near the square root of the length."""
    last = 2 ** math.ceil(math.log2(math.sqrt(length)))
    return [-(-length // last), last]


def _default_axial_dims(hidden_dim, num_axes):
    """A quarter and the rest for two axes, else equal parts."""
    first = hidden_dim // 4
    if num_axes == 2 and first:
        return [first, hidden_dim - first]
    if num_axes == 0:
        return []
    part = hidden_dim // num_axes
    return [part] * (num_axes - 1) + [hidden_dim - part * (num_axes - 1)]


def _check_axes(config, shape, dims):
    length, hidden_dim = config.max_sequence_length, config.hidden_dim
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


def _check_no_axes(config):
    for name in ("axial_shape", "axial_dims"):
        value = getattr(config, name)
        if value is not None:
            raise ValueError(
                f"`{name}` is for axial positions. Expected None, or "
                f"position_embedding='axial'. Received: {name}={value}, "
                f"position_embedding={config.position_embedding!r}"
            )


def _serialized(config, kind):
    """The config of an initializer or a regularizer, if it has one."""
    name, module = f"kernel_{kind}", getattr(keras, f"{kind}s")
    value = getattr(config, name)
    default = {"initializer": "glorot_uniform"}.get(kind)
    given = default if value is None else value
    serialized = module.serialize(getattr(checks, kind)(name, given))
    try:
        module.get(serialized)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The layers of a model are made of its config, and `{name}` has "
            "none. Expected a name or an object that Keras can save. "
            f"Received: {name}={value!r}"
        ) from error
    return without_marks(serialized)
