"""Weights of ordinary attention for this package's layers."""

from collections.abc import Mapping

import keras
import numpy as np

from keras_reformer.convert.arrays import check_arrays

_KINDS = ("query", "key", "value", "output")


def from_multi_head_attention(attention, layer):
    """Sets a layer's weights from those of ordinary multi-head attention.

    A layer of separate queries and keys computes with them what the source
    computed. One of shared query-keys (`LSHSelfAttention`,
    `MultiHeadAttention` with `share_query_key`) gets the mean of both
    projections, `(query + key) / 2`, which is an approximation to begin
    training from:

    - Where queries and keys were different functions, scores are others.
    - The score of a query `q` and a key `k` is `q.k / |k|` instead of
      `q.k / sqrt(key_dim)`: a layer whose keys are longer than
      `sqrt(key_dim)` attends less sharply than before, and every key has the
      same length.
    - A token does not see itself, unless it sees nothing else.
    - LSH attention sees some of the tokens; `exact_below` shows all of them.

    Where both projections are equal, so is their mean.

    Args:
        attention: a built `keras.layers.MultiHeadAttention` or
            `MultiHeadAttention`, or a mapping of arrays: `query_kernel`,
            `key_kernel` and `value_kernel`, `(dim, num_heads, size)` or
            `(dim, num_heads * size)`, `output_kernel`, `(num_heads, size,
            dim)` or `(num_heads * size, dim)`, and, for layers with biases,
            `query_bias`, `key_bias`, `value_bias` (`(num_heads, size)` or
            flat) and `output_bias` (`(dim,)`).
        layer: a layer of this package with as many and as large heads, and
            biases where the source has any. It is built if need be.

    Returns:
        The layer.

    Raises:
        ValueError: if arrays are missing, left over or do not fit. All are
            listed, and the layer keeps its weights.

    Example:

    >>> attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=16)
    >>> attention.build((None, None, 32), (None, None, 32))
    >>> layer = keras_reformer.LSHSelfAttention(
    ...     num_heads=2, key_dim=16, use_bias=True
    ... )
    >>> layer = keras_reformer.convert.from_multi_head_attention(
    ...     attention, layer
    ... )
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: trax's `PureLSHSelfAttentionWrapper` takes the mean for the
    same purpose; [Kitaev et al., 2020](https://arxiv.org/abs/2001.04451),
    section 2, has shared query-keys.
    """
    given = _given(attention)
    if not layer.built:
        layer.build((None, None, _width(given)))
    targets = _targets(layer)
    _check(given, targets, layer)
    for target, names in targets.items():
        arrays = [np.asarray(given[name], "float64") for name in names]
        # The mean of two equal arrays is each, to the last bit.
        mean = np.asarray(sum(arrays)) / len(arrays)
        variable = _variable(layer, target)
        variable.assign(mean.reshape(variable.shape))
    return layer


def _given(attention):
    """The source's arrays by name."""
    if isinstance(attention, Mapping):
        return {name: np.asarray(array) for name, array in attention.items()}
    if not attention.built:
        raise ValueError(
            "The layer has no weights yet. Expected a built layer. Received: "
            f"attention={attention.name}. Call it or its `build` first."
        )
    variables = {
        f"{kind}_{name}": variable
        for kind in _KINDS
        for name, variable in _dense_variables(attention, kind)
    }
    known = {id(variable) for variable in variables.values()}
    # Those of gates or position biases, which have no place here.
    others = {v.path: v for v in attention.weights if id(v) not in known}
    return {
        name: keras.ops.convert_to_numpy(variable)
        for name, variable in {**variables, **others}.items()
        if "seed_generator" not in name
    }


def _dense_variables(layer, kind):
    """A projection's kernel and bias, in Keras's layers and in ours."""
    ours = "attention_output" if kind == "output" else kind
    for name in (f"{kind}_dense", ours):
        dense = getattr(layer, name, None)
        if dense is not None:
            yield "kernel", dense.kernel
            if dense.bias is not None:
                yield "bias", dense.bias
            return


def _width(given):
    kernel = given.get("query_kernel", np.zeros(()))
    if not kernel.ndim:
        raise ValueError(
            "The layer's width is that of the query's kernel. Expected an "
            f"array `query_kernel`. Received: {_shapes(given)}"
        )
    return kernel.shape[0]


def _targets(layer):
    """By variable of the layer, the source's arrays it is the mean of."""
    if hasattr(layer, "query_key"):
        sources = {"query_key": ("query", "key")}
    elif hasattr(layer, "query") and hasattr(layer, "key"):
        sources = {"query": ("query",), "key": ("key",)}
    else:
        raise ValueError(
            "Expected a layer with queries, keys and values, such as "
            f"LSHSelfAttention. Received: layer={type(layer).__name__}"
        )
    sources |= {"value": ("value",), "attention_output": ("output",)}
    names = ("kernel", "bias") if layer.use_bias else ("kernel",)
    return {
        (dense, name): [f"{kind}_{name}" for kind in kinds]
        for dense, kinds in sources.items()
        for name in names
    }


def _variable(layer, target):
    dense, name = target
    return getattr(getattr(layer, dense), name)


def _check(given, targets, layer):
    """Raises unless every array has a place that it fits."""
    expected = {}
    for (dense, name), sources in targets.items():
        shape = tuple(_variable(layer, (dense, name)).shape)
        heads = layer.num_heads
        if dense in ("key", "value"):
            heads = layer.num_key_value_heads
        shapes = [shape, _per_head(dense, name, shape, heads)]
        expected |= dict.fromkeys(sources, shapes)
    check_arrays(expected, given, "The weights do not fit the layer.")


def _per_head(dense, name, shape, num_heads):
    """The shape of a dense layer's variable with an axis of heads."""
    if dense != "attention_output":
        return (*shape[:-1], num_heads, shape[-1] // num_heads)
    if name == "kernel":
        return (num_heads, shape[0] // num_heads, shape[1])
    return shape


def _shapes(arrays):
    return ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
