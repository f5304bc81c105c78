"""trax's checkpoints to Keras models.

A checkpoint is a gzipped pickle whose `weights` are nested tuples. Their
nesting changed over the years; the order of the arrays in a part did not, so
parts are read as flat lists (references: Kitaev et al. 2020 and the code
published with it).
"""

import collections
import gzip

import numpy as np

from keras_reformer.convert.huggingface import from_huggingface
from keras_reformer.convert.restricted_pickle import RestrictedUnpickler
from keras_reformer.files import reading

_EMBEDDING, _POSITIONS, _BLOCKS, _NORMALIZATION, _HEAD = 1, 3, 5, 7, 9
_BLOCK = 2**20  # Bytes read at once.
# A block's attention, a swap of the streams, its feed-forward, a swap.
_ENTRIES_IN_BLOCK = 4
_PROJECTIONS = {
    3: ("query_key", "value"),
    4: ("query", "key", "value"),
}
# What NumPy's own pickles call, under the names of its versions 1 and 2.
_NUMPY = {
    ("multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("multiarray", "scalar"): np.float32(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
}
_ALLOWED = {
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for (module, name), function in _NUMPY.items()
    },
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
}


def load_trax(path, config=None):
    """The language model of a trax checkpoint.

    Sizes, heads, depth and kinds of layers follow from the arrays. What no
    array tells is taken from `config`.

    Args:
        path: path of `model.pkl.gz`. The pickle is read without running what
            it asks for: it may hold arrays and containers only.
        config: dict of what the arrays do not tell, by the names of Hugging
            Face's `ReformerConfig`: chunk lengths, numbers of neighbouring
            chunks, `num_buckets`, `num_hashes`, `hidden_act`, dropout.
            Defaults to what that means by default. `{"is_decoder": False}`
            makes a `ReformerMaskedLM`.

    Returns:
        `ReformerCausalLM`, or what `config` makes of it.

    Raises:
        ValueError: if the file is damaged, the pickle asks for anything else,
            or the arrays are not those of a Reformer.
    """
    with reading(path, "a checkpoint of trax"):
        weights = _read(path)
        arrays, sizes = _published(weights), _sizes(weights)
    return from_huggingface({**sizes, **(config or {})}, arrays)


def _read(path):
    with gzip.open(path) as file:
        checkpoint = RestrictedUnpickler(file, _ALLOWED).load()
        # The checksum is compared at the end, which the pickle may not reach.
        while file.read(_BLOCK):
            pass
    if not isinstance(checkpoint, dict) or "weights" not in checkpoint:
        raise ValueError(
            "This is no trax checkpoint. Expected a dict with `weights`. "
            f"Received: {type(checkpoint).__name__}"
        )
    weights = checkpoint["weights"]
    if not isinstance(weights, (tuple, list)) or len(weights) <= _HEAD:
        raise ValueError(
            "The weights are not those of a Reformer language model. Expected "
            f"at least {_HEAD + 1} entries. Received: {type(weights).__name__}"
        )
    return weights


def _leaves(part):
    """The arrays of a part, in order."""
    if isinstance(part, (tuple, list)):
        return [array for each in part for array in _leaves(each)]
    return [] if part is None else [np.asarray(part)]


def _blocks(weights):
    """Attention's and feed-forward's arrays of every block."""
    entries = weights[_BLOCKS]
    for first in range(0, len(entries), _ENTRIES_IN_BLOCK):
        attention, feed_forward = (
            _leaves(entries[first + offset]) for offset in (0, 2)
        )
        found = (len(attention) - 2, len(feed_forward))
        if found not in ((3, 6), (4, 6)):
            raise ValueError(
                "A block's arrays are not those of a Reformer. Expected 3 "
                "(LSH) or 4 (local) of attention, 6 of a feed-forward layer "
                "and its normalization. Received: block="
                f"{first // _ENTRIES_IN_BLOCK}, {found[0]} and {found[1]}"
            )
        yield attention, feed_forward


def _sizes(weights):
    """What the arrays tell of the configuration."""
    (table,) = _leaves(weights[_EMBEDDING])
    positions = _leaves(weights[_POSITIONS])
    blocks = list(_blocks(weights))
    num_heads, _, head_size = blocks[0][0][2].shape
    axes = [_axis(array) for array in positions]
    lengths = [length for length, _ in axes]
    return {
        "vocab_size": table.shape[0],
        "hidden_size": table.shape[1],
        "feed_forward_size": blocks[0][1][2].shape[1],
        "num_attention_heads": num_heads,
        "attention_head_size": head_size,
        "attn_layers": [
            "lsh" if len(attention) == 5 else "local" for attention, _ in blocks
        ],
        "axial_pos_embds": len(axes) > 1,
        "axial_pos_shape": lengths,
        "axial_pos_embds_dim": [dim for _, dim in axes],
        "max_position_embeddings": int(np.prod(lengths)),
        "is_decoder": True,
    }


def _axis(array):
    """Length and width of an axis's table, however many ones are around."""
    return max(array.shape[:-1]), array.shape[-1]


def _published(weights):
    """The arrays in Hugging Face's layout, by its names."""
    name = "reformer.embeddings."
    (table,) = _leaves(weights[_EMBEDDING])
    found = {f"{name}word_embeddings.weight": table}
    positions = _leaves(weights[_POSITIONS])
    if len(positions) == 1:
        table = positions[0].reshape(_axis(positions[0]))
        found[f"{name}position_embeddings.embedding.weight"] = table
    else:
        for axis, array in enumerate(positions):
            key = f"{name}position_embeddings.weights.{axis}"
            found[key] = array.reshape(array.shape[1:])
    for index, block in enumerate(_blocks(weights)):
        found |= _block(f"reformer.encoder.layers.{index}.", *block)
    found |= _normalization(
        "reformer.encoder.layer_norm", _leaves(weights[_NORMALIZATION])
    )
    kernel, bias = _leaves(weights[_HEAD])
    return {
        **found,
        "lm_head.decoder.weight": kernel.T,
        "lm_head.bias": bias,
    }


def _block(name, attention, feed_forward):
    scale, bias, *projections, output = attention
    kinds = _PROJECTIONS[len(projections) + 1]
    inner, outer = f"{name}feed_forward.dense", f"{name}feed_forward.output"
    return {
        **_normalization(f"{name}attention.layer_norm", (scale, bias)),
        **{
            f"{name}attention.self_attention.{kind}.weight": _into_heads(array)
            for kind, array in zip(kinds, projections, strict=True)
        },
        f"{name}attention.output.dense.weight": _merged(output).T,
        **_normalization(f"{name}feed_forward.layer_norm", feed_forward[:2]),
        f"{inner}.dense.weight": feed_forward[2].T,
        f"{inner}.dense.bias": feed_forward[3],
        f"{outer}.dense.weight": feed_forward[4].T,
        f"{outer}.dense.bias": feed_forward[5],
    }


def _normalization(name, arrays):
    return dict(zip((f"{name}.weight", f"{name}.bias"), arrays, strict=True))


def _into_heads(array):
    """`(heads, dim, size)` to `(heads * size, dim)`."""
    return _merged(array.transpose(0, 2, 1))


def _merged(array):
    """`(heads, size, dim)` to `(heads * size, dim)`."""
    return array.reshape(-1, array.shape[-1])
