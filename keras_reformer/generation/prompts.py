"""Checks prompts and converts them to lists of token ids."""

import numbers
import reprlib
from typing import Any

import keras
import numpy as np

from keras_reformer.generation.loop import Decoder
from keras_reformer.layers import checks
from keras_reformer.ops.tracing import is_symbolic


def check(
    prompts: Any,
    max_length: int,
    decoder: Decoder,
    padding_id: int | None = None,
) -> list[list[int]]:
    """Converts prompts to lists of token ids.

    Args:
        prompts: as `ReformerCausalLM.generate` takes them.
        max_length: Greatest length of a prompt.
        decoder: the model's `Decoder`.
        padding_id: Token that is padding at both ends; None for no token.

    Returns:
        The token ids of each row, without padding.

    Raises:
        ValueError: if prompts are no token ids, too long, empty, or hold ids
            outside of the vocabulary.
    """
    checks.positive_int("max_length", max_length)
    longest = decoder.max_sequence_length
    if max_length > longest:
        raise ValueError(
            "`max_length` exceeds what the model was made for. Expected at "
            f"most max_sequence_length={longest}. Received: "
            f"max_length={max_length}"
        )
    texts = [row.tolist() for row in without_padding(prompts, padding_id)]
    for index, text in enumerate(texts):
        if not 1 <= len(text) <= max_length:
            raise ValueError(
                "A prompt must have at least one token that is no padding, "
                f"and no more than max_length={max_length}. Received: "
                f"len(prompts[{index}])={len(text)}"
            )
        outside = [t for t in text if not 0 <= t < decoder.vocabulary_size]
        if outside:
            raise ValueError(
                "A prompt holds token ids outside the vocabulary. Expected "
                f"ids from 0 to {decoder.vocabulary_size - 1}. Received: "
                f"prompts[{index}] with {outside[:5]}"
            )
    return texts


def stop_ids(stop_token_ids) -> tuple[int, ...]:
    """The stop tokens as a sorted tuple, empty for None."""
    if stop_token_ids is None:
        return ()
    if isinstance(stop_token_ids, (set, frozenset)):
        stop_token_ids = list(stop_token_ids)
    tokens = _flat(stop_token_ids)
    if tokens is None:
        raise ValueError(
            "`stop_token_ids` must be a list of integers or None. Received: "
            f"stop_token_ids={_shown(stop_token_ids)}"
        )
    return tuple(sorted(tokens.tolist()))


def without_padding(
    prompts: Any, padding_id: int | None = None
) -> list[np.ndarray]:
    """The rows as integer arrays, without padding; see `check`."""
    if padding_id is not None:
        checks.integer("padding_id", padding_id)
    if not isinstance(prompts, dict):
        rows = _rows("prompts", prompts)
        return _stripped(rows, padding_id)
    if prompts.get("segment_ids") is not None:
        raise ValueError(
            "A text is continued from one document. Expected each in a row "
            "of its own, without segment_ids. Received: prompts with keys "
            f"{sorted(prompts)}"
        )
    unknown = set(prompts) - {"token_ids", "padding_mask", "segment_ids"}
    if unknown or "token_ids" not in prompts:
        raise _refusal("prompts", prompts)
    rows = _rows("prompts['token_ids']", prompts["token_ids"])
    mask = prompts.get("padding_mask")
    if mask is None:
        return _stripped(rows, padding_id)
    if padding_id is not None:
        raise ValueError(
            "Padding is given twice. Expected `padding_id` or a mask, not "
            f"both. Received: padding_id={padding_id} and "
            "prompts['padding_mask']"
        )
    return _unmasked(rows, _rows("prompts['padding_mask']", mask, "biuf"))


def _stripped(rows, padding_id):
    """Rows without the padding at their ends."""
    if padding_id is None:
        return rows
    return [_unpadded(row, row != padding_id) for row in rows]


def _rows(name, value, kinds="iu"):
    """The rows of a batch as arrays of these kinds of dtypes."""
    if isinstance(value, keras.KerasTensor) or is_symbolic(value):
        raise ValueError(
            "Texts are continued outside of graphs. Expected values. "
            f"Received: {name}={value}. In a graph use the `generate` "
            "signature of an exported model."
        )
    if hasattr(value, "to_list"):
        # A ragged tensor.
        value = value.to_list()
    elif hasattr(value, "shape"):
        value = np.asarray(value)
    if isinstance(value, (str, bytes)) or not np.iterable(value):
        raise _refusal(name, value)
    return [
        _row(f"{name}[{index}]", part, kinds)
        for index, part in enumerate(value)
    ]


def _row(name, value, kinds):
    row = _flat(value, kinds)
    if row is None:
        raise _refusal(name, value)
    return row


def _flat(value, kinds="iu"):
    """An array of one axis and of these kinds of dtypes, or None."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    if array.shape == (0,):
        return array.astype("int32")
    return array if array.ndim == 1 and array.dtype.kind in kinds else None


def _unpadded(row, valid):
    """The part from the first valid token to the last."""
    places = np.flatnonzero(valid)
    return row[places[0] : places[-1] + 1] if len(places) else row[:0]


def _unmasked(rows, masks):
    """The valid tokens of each row, which must be contiguous."""
    lengths, found = ([len(x) for x in part] for part in (rows, masks))
    if lengths != found:
        raise ValueError(
            "A padding mask must have the shape of its token ids. Expected "
            f"rows of lengths {_shown(lengths)}. Received: "
            f"prompts['padding_mask'] with {_shown(found)}"
        )
    texts = [_unpadded(*pair) for pair in zip(rows, masks, strict=True)]
    for index, (text, mask) in enumerate(zip(texts, masks, strict=True)):
        if len(text) != np.count_nonzero(mask):
            raise ValueError(
                "Padding must be at the ends of a prompt. Expected a mask "
                "whose valid tokens follow each other. Received: "
                f"prompts['padding_mask'][{index}]={_shown(mask)}"
            )
    return texts


def _refusal(name, value):
    hint = ""
    if isinstance(value, (str, bytes)):
        hint = (
            ". Turn text into token ids first, for example with "
            "`keras_reformer.data.ByteTokenizer().tokenize(text)`"
        )
    elif isinstance(value, numbers.Integral):
        hint = ". A single prompt is a batch of one: `[prompt]`"
    return ValueError(
        "Prompts must be rows of token ids. Expected a list of lists of "
        "integers, an integer array of shape `(batch, length)`, or a dict of "
        "such `token_ids` and their `padding_mask`. Received: "
        f"{name}={_shown(value)}{hint}"
    )


def _shown(value):
    """A short text for a value."""
    if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
        return f"array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return reprlib.repr(value)
