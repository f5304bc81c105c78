"""Checks prompts and converts them to lists of token ids."""

import numbers
import reprlib
from typing import Any

import keras
import numpy as np

from keras_reformer.generation.loop import Decoder
from keras_reformer.layers import checks
from keras_reformer.ops.attention.segments import check_segment_ids
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
        return _stripped(_rows("prompts", prompts), padding_id)
    unknown = set(prompts) - {"token_ids", "padding_mask", "segment_ids"}
    if unknown or "token_ids" not in prompts:
        raise _refusal("prompts", prompts)
    rows = _rows("prompts['token_ids']", prompts["token_ids"])
    masks, segments = prompts.get("padding_mask"), prompts.get("segment_ids")
    if masks is not None:
        if padding_id is not None:
            raise ValueError(
                "Padding is given twice. Expected `padding_id` or a mask, not "
                f"both. Received: padding_id={padding_id} and "
                "prompts['padding_mask']"
            )
        masks = _rows_like(rows, "padding_mask", masks, "biuf")
    if segments is not None:
        if masks is None:
            masks = [_within_padding(row, padding_id) for row in rows]
        segments = _rows_like(rows, "segment_ids", segments)
        rows, masks = _last_documents(rows, masks, segments)
    if masks is not None:
        rows = _unmasked(rows, masks)
    return _stripped(rows, padding_id)


def _last_documents(rows, masks, segments):
    """The document of each row's last valid token, and its mask.

    Args:
        rows: list of arrays of token ids.
        masks: list of arrays, true at valid tokens.
        segments: list of arrays of segment ids.
    """
    masks = [np.asarray(mask, bool) for mask in masks]
    _check_segments(segments, masks)
    places = [
        ids == ids[mask][-1] if mask.any() else mask
        for ids, mask in zip(segments, masks, strict=True)
    ]
    return [
        [row[place] for row, place in zip(part, places, strict=True)]
        for part in (rows, masks)
    ]


def _check_segments(segments, masks):
    """Refuses segment ids as those of rows to `fit` are refused."""
    longest = max(map(len, segments), default=0)
    if longest == 0:
        return
    ids = np.zeros((len(segments), longest), "int64")
    valid = np.zeros(ids.shape, bool)
    for row, (segment_ids, mask) in enumerate(
        zip(segments, masks, strict=True)
    ):
        ids[row, : len(segment_ids)] = segment_ids
        valid[row, : len(mask)] = mask
    check_segment_ids(*map(keras.ops.convert_to_tensor, (ids, valid)))


def _stripped(rows, padding_id):
    """Rows without the padding at their ends."""
    if padding_id is None:
        return rows
    return [_unpadded(row, row != padding_id) for row in rows]


def _within_padding(row, padding_id):
    """True from the first token that is no padding to the last."""
    text = np.ones(len(row), bool) if padding_id is None else row != padding_id
    before = np.logical_or.accumulate(text)
    return before & np.logical_or.accumulate(text[::-1])[::-1]


def _rows_like(rows, name, value, kinds="iu"):
    """What goes with rows of token ids, in rows of the same lengths."""
    name = f"prompts['{name}']"
    found = _rows(name, value, kinds)
    lengths, others = ([len(x) for x in part] for part in (rows, found))
    if lengths != others:
        raise ValueError(
            "What goes with token ids must have their shape. Expected rows of "
            f"lengths {_shown(lengths)}. Received: {name} with "
            f"{_shown(others)}"
        )
    return found


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
        "such `token_ids` and their `padding_mask` and `segment_ids`. "
        "Received: "
        f"{name}={_shown(value)}{hint}"
    )


def _shown(value):
    """A short text for a value."""
    if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
        return f"array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return reprlib.repr(value)
