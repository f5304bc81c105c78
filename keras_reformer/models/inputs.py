"""Inputs of the models: tokens and their padding mask."""

from typing import Any

import keras

from keras_reformer.layers import checks
from keras_reformer.layers.mixins import ModelMixin
from keras_reformer.ops.attention.positions import checked_start_index
from keras_reformer.ops.attention.segments import check_segment_ids
from keras_reformer.ops.vocabulary import check_token_ids


def token_inputs():
    """The symbolic inputs of all models."""
    return {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input(
            (None,), dtype="bool", name="padding_mask", optional=True
        ),
    }


def complete(inputs, mask=None):
    """Brings all accepted forms of inputs into one.

    Args:
        inputs: dict with `token_ids` or `token_embeddings` and perhaps
            `padding_mask` and `segment_ids`; a list of token ids and mask; or
            token ids alone.
        mask: Keras's mask of the inputs, in their structure. Used if there
            is no `padding_mask`.

    Returns:
        dict of `token_ids`, int32 `(batch, length)`, or `token_embeddings`,
        float `(batch, length, dim)`, and of `padding_mask`, bool `(batch,
        length)`, which is None where all tokens are valid; and `segment_ids`,
        int32 `(batch, length)`, where they were given.
    """
    given = _tensors(inputs)
    given.pop("start_index", None)
    key = _which_tokens(given)
    tokens = _ids(given[key]) if key == "token_ids" else _vectors(given[key])
    padding_mask = given.get("padding_mask")
    if padding_mask is None:
        padding_mask = _mask_of_tokens(mask, key)
    if padding_mask is not None:
        padding_mask = _mask(padding_mask, tokens)
    found = {key: tokens, "padding_mask": padding_mask}
    segment_ids = given.get("segment_ids")
    if segment_ids is not None:
        found["segment_ids"] = checks.integers(
            "segment_ids", segment_ids, tokens.shape[:2]
        )
    return found


class TokenInputs(ModelMixin):
    """Makes a Functional model accept all forms of inputs of `complete`.

    Example:

    Gradients with respect to embeddings, as saliency maps show them:

    >>> import tensorflow as tf
    >>> backbone = keras_reformer.ReformerBackbone(
    ...     vocabulary_size=258, num_layers=1, num_heads=2, hidden_dim=32,
    ...     intermediate_dim=64, max_sequence_length=4096,
    ... )
    >>> text = backbone.token_embedding(np.ones((1, 300), "int32"))
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(text)
    ...     last = backbone({"token_embeddings": text})[:, -1]
    >>> tape.gradient(last, text).shape
    TensorShape([1, 300, 32])
    """

    # The Functional model's own spec would refuse a missing mask.
    input_spec = None

    def __call__(self, inputs, *args, **kwargs):
        # Keras converts no inputs of Functional models before `call`, and
        # refuses arrays beside tensors.
        return super().__call__(_tensors(inputs), *args, **kwargs)

    def symbolic_inputs(self):
        """The inputs of the model's graph."""
        return token_inputs()

    def complete_inputs(self, inputs, mask=None):
        """Checked inputs in one form; see `complete`.

        `start_index`, int `(batch,)`, where it was given, is in them too.
        """
        return _with_start_index(complete(inputs, mask), inputs)

    def with_masks(self, inputs):
        """Inputs by name, with a mask of ones, int8, where one is missing."""
        return {"padding_mask": ones_like_mask(tokens_of(inputs)), **inputs}

    def check_ids(self, inputs):
        """Refuses unknown token ids and segments in disorder, on the host."""
        # In a graph these are assertions, which run on their own.
        if "segment_ids" in inputs:
            check_segment_ids(inputs["segment_ids"], inputs["padding_mask"])
        backbone: Any = getattr(self, "backbone", self)
        if "token_ids" in inputs:
            check_token_ids(
                inputs["token_ids"],
                inputs["padding_mask"],
                backbone.vocabulary_size,
            )

    def compute_mask(self, inputs, previous_mask):
        """None: the last layers attach masks to the outputs."""
        return None

    def compute_output_spec(self, inputs, training=None, mask=None):
        return super().compute_output_spec(self.inputs_of_shape(inputs))

    def inputs_of_shape(self, inputs):
        """Symbolic inputs of the graph, of the shapes of inputs."""
        # The graph has token ids and a mask, whatever the inputs are.
        shape = tokens_of(self.complete_inputs(inputs)).shape[:2]
        return {
            "token_ids": keras.KerasTensor(shape, "int32"),
            "padding_mask": keras.KerasTensor(shape, "bool"),
        }

    def compute_output_shape(self, input_shape):
        outputs = self.compute_output_spec(_of_shapes(input_shape))
        return keras.tree.map_structure(lambda x: x.shape, outputs)


def _of_shapes(shapes):
    """Symbolic inputs of a structure of shapes."""
    if shapes is None:
        return None
    if isinstance(shapes, dict):
        return {
            name: keras.KerasTensor(shape, "int32")
            if name == "segment_ids"
            else _of_shapes(shape)
            for name, shape in shapes.items()
        }
    if shapes and isinstance(shapes[0], (list, tuple)):
        return [_of_shapes(shape) for shape in shapes]
    return keras.KerasTensor(shapes, "float32")


def ones_like_mask(tokens):
    """An int8 mask of all tokens: strategies cannot reduce booleans."""
    return keras.ops.ones(keras.ops.shape(tokens)[:2], "int8")


def tokens_of(inputs):
    """The token ids or embeddings of complete inputs."""
    tokens = inputs.get("token_ids")
    return inputs["token_embeddings"] if tokens is None else tokens


def with_checked_sizes(inputs, max_sequence_length, hidden_dim):
    """The inputs, if a backbone of these sizes can take them.

    Args:
        inputs: what `complete` returns.
        max_sequence_length: int.
        hidden_dim: int. Width of token embeddings.

    Returns:
        The inputs.

    Raises:
        ValueError: if there are no tokens, too many, embeddings of another
            width, or rows that begin so late that their end, padding
            included, lies beyond the greatest length. Where a graph does not
            know the beginnings, this last is an assertion.
    """
    shape = tokens_of(inputs).shape
    if shape[1] == 0:
        raise ValueError(
            "The inputs have no tokens. Expected a length of at least 1. "
            f"Received: {' or '.join(sorted(inputs))} of shape {tuple(shape)}"
        )
    # The position table may be longer, and there may be none.
    if shape[1] is not None and shape[1] > max_sequence_length:
        raise ValueError(
            "The inputs are longer than the model was made for. Expected "
            f"at most max_sequence_length={max_sequence_length}. "
            f"Received: length={shape[1]}"
        )
    if len(shape) == 3 and shape[2] != hidden_dim:
        raise ValueError(
            "Token embeddings must be as wide as the model's. Expected "
            f"hidden_dim={hidden_dim}. Received: "
            f"token_embeddings.shape={tuple(shape)}"
        )
    return _with_checked_start(inputs, max_sequence_length)


def _with_checked_start(inputs, max_sequence_length):
    """The inputs with a `start_index` that is checked where it has a value."""
    start_index = inputs.get("start_index")
    if start_index is None or isinstance(start_index, keras.KerasTensor):
        return inputs
    length = keras.ops.shape(tokens_of(inputs))[1]
    start = checked_start_index(start_index, length, max_sequence_length)
    return {**inputs, "start_index": start}


def _tensors(inputs):
    """A dict of tensors, symbolic or not."""
    return {
        name: None if x is None else _tensor(name, x)
        for name, x in as_dict(inputs).items()
    }


def as_dict(inputs) -> dict[str, Any]:
    """Inputs by name, otherwise unchanged."""
    if isinstance(inputs, dict):
        return inputs
    if not isinstance(inputs, (list, tuple)):
        return {"token_ids": inputs}
    names = ("token_ids", "padding_mask")
    if not 1 <= len(inputs) <= 2 or not hasattr(inputs[0], "shape"):
        raise ValueError(
            "A list of inputs must hold token ids and, optionally, their "
            "padding mask, as arrays or tensors. Expected `[token_ids, "
            f"padding_mask]`. Received: a {type(inputs).__name__} of "
            f"{[type(x).__name__ for x in inputs[:3]]}, length {len(inputs)}. "
            "Make one array of token ids with `np.array`."
        )
    return dict(zip(names, inputs, strict=False))


def _which_tokens(given):
    """The key of the tokens."""
    kinds = ("token_ids", "token_embeddings")
    found = [key for key in kinds if given.get(key) is not None]
    others = {"padding_mask", "segment_ids"}
    if len(found) != 1 or set(given) - {*kinds, *others}:
        raise ValueError(
            "Received inputs that the model does not take. Expected "
            "`token_ids` of shape `(batch, length)`, alone or in a dict with "
            "`padding_mask` and `segment_ids`, or `token_embeddings` of shape "
            "`(batch, length, hidden_dim)` in their place. Received: "
            f"keys={sorted(given)}"
        )
    return found[0]


def _ids(x):
    shape, dtype = tuple(x.shape), keras.backend.standardize_dtype(x.dtype)
    if len(shape) != 2:
        raise ValueError(
            "Token ids must have two axes. Expected shape `(batch, length)`. "
            f"Received: token_ids.shape={shape}"
        )
    # A float of half precision holds no integers above 2048 (256).
    whole = keras.backend.is_int_dtype(dtype) and dtype != "bool"
    if not whole and dtype not in ("float32", "float64"):
        raise ValueError(
            "Token ids must be integers. Expected an integer dtype, or "
            f"float32 that holds integers. Received: token_ids.dtype={dtype}. "
            "In a Functional or Sequential model, give the ids' `keras.Input` "
            "`dtype='int32'`."
        )
    return _cast(x, "int32")


def _vectors(x):
    shape, dtype = tuple(x.shape), keras.backend.standardize_dtype(x.dtype)
    if len(shape) != 3 or not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "Token embeddings must be vectors of floats. Expected shape "
            "`(batch, length, hidden_dim)`. Received: token_embeddings.shape="
            f"{shape}, token_embeddings.dtype={dtype}"
        )
    return x


def _mask_of_tokens(mask, key):
    """The tokens' part of Keras's mask, which has the inputs' structure."""
    if isinstance(mask, dict):
        mask = mask.get(key)
    elif isinstance(mask, (list, tuple)):
        mask = mask[0]
    return None if mask is None else _tensor("mask", mask)


def _mask(mask, tokens):
    shape, expected = tuple(mask.shape), tuple(tokens.shape[:2])
    # Keras treats a last axis of size 1 as none.
    axes = shape[:2] if shape[2:] == (1,) else shape
    if not checks.fits(axes, expected):
        raise ValueError(
            "The padding mask must have a place for each token. Expected "
            f"shape `(batch, length)`={expected}. Received: "
            f"padding_mask.shape={shape}"
        )
    if len(shape) == 3 and not isinstance(mask, keras.KerasTensor):
        mask = mask[..., 0]
    return _cast(mask, "bool")


def _tensor(name, x):
    if isinstance(x, keras.KerasTensor):
        return x
    if hasattr(x, "row_lengths"):
        raise ValueError(
            f"`{name}` must not be ragged. Pad its rows with `x.to_tensor()` "
            "and make the padding mask with `tf.sequence_mask("
            f"x.row_lengths())`. Received: a {type(x).__name__}"
        )
    if not hasattr(x, "shape"):
        raise ValueError(
            f"`{name}` must be an array or a tensor. Received: {name} of type "
            f"{type(x).__name__}. Make an array of it with `np.array`."
        )
    return keras.ops.convert_to_tensor(x)


def _cast(x, dtype):
    """Casts a tensor; a symbolic one, of which the shape is used, is not."""
    return x if isinstance(x, keras.KerasTensor) else keras.ops.cast(x, dtype)


def _with_start_index(found, given):
    """Complete inputs, with the `start_index` of those that were given."""
    if not isinstance(given, dict) or given.get("start_index") is None:
        return found
    start_index = given["start_index"]
    if "segment_ids" in found:
        raise ValueError(
            "Positions of packed documents begin anew in each. Expected "
            "`start_index` or `segment_ids`, not both. Received: "
            f"segment_ids.shape={tuple(found['segment_ids'].shape)}, "
            f"start_index={start_index!r}"
        )
    # A symbolic one has a shape and, made of it, a dtype of no meaning.
    if not isinstance(start_index, keras.KerasTensor):
        checks.start_index(start_index, tokens_of(found).shape[0])
        start_index = keras.ops.cast(start_index, "int32")
    return {**found, "start_index": start_index}
