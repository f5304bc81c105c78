"""What training draws at random of each batch: hidden spans, positions."""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.data.byte_tokenizer import END_ID, PADDING_ID
from keras_reformer.data.document_batches import split_element


def mask_spans(
    dataset: tf.data.Dataset,
    mask_id: int,
    *,
    seed: int,
    rate: float = 0.15,
    mean_length: float = 3.0,
    keep_ids: Sequence[int] = (PADDING_ID, END_ID),
) -> tf.data.Dataset:
    """Hides spans of tokens, for a masked language model.

    Spans begin anywhere, and their lengths are geometrically distributed; one
    ends where its row or, with `segment_ids`, its document ends.
    Padding and `keep_ids` are never hidden; of every row that has other
    tokens one is hidden at least. What is hidden in a batch follows from
    `seed` and the batch's number (put `repeat` before, so that each pass over
    the data draws anew).

    Args:
        dataset: Batches of int token ids `(batch, length)`, or dicts of
            `token_ids` and perhaps `padding_mask` and `segment_ids`, as of
            `pad_documents` and `pack_documents`. Labels behind them are
            dropped.
        mask_id: int. The id in the place of a hidden token, such as
            `ByteTokenizer.vocabulary_size`; then the model's vocabulary is one
            larger.
        seed: int. Chooses the spans.
        rate: float in `(0, 1)`. The share of tokens that is hidden, in the
            mean over long documents: no span reaches into the beginning of
            one. Defaults to `0.15`.
        mean_length: float. The mean length of a span, `1.0` for single
            tokens. Defaults to `3.0`.
        keep_ids: ints. Token ids that are not hidden. Defaults to those of
            padding and of the end of a text.

    Returns:
        dataset: Triples of inputs, labels (the original ids) and float32
            weights, 1 where a token is hidden and 0 elsewhere: what `fit`
            takes for a `ReformerMaskedLM`.

    Raises:
        ValueError: if `rate`, `mean_length` or `mask_id` is out of its range,
            or the elements are no batches of token ids.

    Example:

    >>> import tensorflow as tf
    >>> from keras_reformer.data import mask_spans
    >>> batches = tf.data.Dataset.from_tensors(tf.range(2, 14)[None])
    >>> dataset = mask_spans(batches, 99, seed=3, rate=0.4)
    >>> [(token_ids, labels, weights)] = dataset.as_numpy_iterator()
    >>> token_ids
    array([[ 2,  3,  4,  5,  6, 99, 99, 99, 99, 99, 99, 13]], dtype=int32)
    """
    start_rate = _start_rate(rate, mean_length)
    if mask_id < 0:
        raise ValueError(f"Expected a token id. Received: mask_id={mask_id}")
    _check_batches(dataset)

    def hide(number, element):
        inputs, _ = split_element(element)
        labels = tf.cast(inputs["token_ids"], tf.int32)
        can_hide = inputs.get("padding_mask", tf.ones_like(labels, tf.bool))
        for keep_id in keep_ids:
            can_hide &= labels != keep_id
        draw, lengths = _draw(tf.shape(labels), seed, number, mean_length)
        ends = _document_ends(inputs.get("segment_ids"), labels)
        hidden = _covered(draw < start_rate, lengths, ends) & can_hide
        hidden |= _one_of_each_row(draw, can_hide & ~_any(hidden))
        tokens = tf.where(hidden, mask_id, labels)
        inputs = _replaced(element, inputs, token_ids=tokens)
        return inputs, labels, tf.cast(hidden, tf.float32)

    return dataset.enumerate().map(hide).prefetch(tf.data.AUTOTUNE)


def random_offsets(
    dataset: tf.data.Dataset, max_sequence_length: int, *, seed: int
) -> tf.data.Dataset:
    """Lets each row begin at a random position of the model's table.

    A model of `max_sequence_length` positions that trains on shorter rows
    would never see the end of its table, axial or not. With these positions
    it does, and costs what the short rows cost. What models attend by
    (rotary, `position_bias`) is the distance, which stays. The positions of a
    batch follow from `seed` and its number.

    Args:
        dataset: Batches of int token ids `(batch, length)`, or dicts of
            `token_ids`, alone or in front of labels and weights; for instance
            of `training_windows`, `pad_documents` or `mask_spans`. Not rows of
            packed documents, whose positions begin anew in each.
        max_sequence_length: int. Positions of the model.
        seed: int. Chooses the positions.

    Returns:
        dataset: The same with inputs that are a dict with `start_index`,
            which models take: int32 `(batch,)`, the position of each row's
            first token, from 0 to `max_sequence_length - length`.

    Raises:
        ValueError: if the rows are longer than the table, or of unknown
            length, the elements are no batches of token ids, or they have
            `segment_ids`.

    Example:

    >>> import tensorflow as tf
    >>> from keras_reformer.data import random_offsets
    >>> batches = tf.data.Dataset.from_tensors(tf.ones((3, 10), tf.int32))
    >>> dataset = random_offsets(batches, 4096, seed=0)
    >>> [inputs] = dataset.as_numpy_iterator()
    >>> inputs["start_index"].shape
    (3,)
    """
    length = _check_batches(dataset)
    if length is None or not 1 <= length <= max_sequence_length:
        raise ValueError(
            "Expected rows of a known length, at most max_sequence_length="
            f"{max_sequence_length}. Received: length={length}"
        )
    if "segment_ids" in split_element(dataset.element_spec)[0]:
        raise ValueError(
            "Positions of packed documents begin anew in each. Expected rows "
            "of one document each, without segment_ids. Received: elements "
            f"{dataset.element_spec}"
        )

    def place(number, element):
        inputs, labels = split_element(element)
        starts = tf.random.stateless_uniform(
            tf.shape(inputs["token_ids"])[:1],
            [seed, number],
            0,
            max_sequence_length - length + 1,
            tf.int32,
            alg="philox",
        )
        inputs = {**inputs, "start_index": starts}
        return (inputs, *labels) if labels else inputs

    return dataset.enumerate().map(place).prefetch(tf.data.AUTOTUNE)


def _start_rate(rate: float, mean_length: float) -> float:
    """The probability that a span begins at a position.

    A position is free if no span of more than `k` tokens began `k` before
    it: the product of `1 - start * P(length > k)`, which is solved for
    `start` by bisection.
    """
    if not 0 < rate < 1 or mean_length < 1:
        raise ValueError(
            "Expected 0 < rate < 1 and mean_length >= 1. Received: "
            f"rate={rate}, mean_length={mean_length}"
        )
    goes_on = 1 - 1 / mean_length
    # Longer spans than these have a share of 1e-9.
    count = 1 if not goes_on else math.ceil(math.log(1e-9, goes_on))
    longer = [goes_on**k for k in range(count)]
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        free = math.prod(1 - middle * share for share in longer)
        low, high = (middle, high) if free > 1 - rate else (low, middle)
    return high


def _draw(shape, seed, number, mean_length):
    """Uniform numbers of all positions, and lengths of spans there."""
    draws = tf.random.stateless_uniform(
        tf.concat([[2], shape], 0), [seed, number], alg="philox"
    )
    if mean_length == 1:
        return draws[0], tf.ones(shape, tf.int32)
    # The inverse of the geometric distribution function.
    more = tf.math.log(1 - draws[1]) / math.log(1 - 1 / mean_length)
    return draws[0], 1 + tf.cast(more, tf.int32)


def _document_ends(segment_ids, token_ids):
    """The position behind each token's document."""
    count = tf.shape(token_ids)[1]
    if segment_ids is None:
        return tf.fill(tf.shape(token_ids), count)
    change = segment_ids[:, 1:] != segment_ids[:, :-1]
    begins = tf.pad(tf.cast(change, tf.int32), [[0, 0], [1, 0]])
    number = tf.cumsum(begins, axis=1)
    return tf.searchsorted(number, number, side="right")


def _covered(starts, lengths, limits):
    """Where a position is in a span that begins at it or before it."""
    count = tf.shape(starts)[1]
    ends = tf.minimum(tf.range(count) + lengths, limits)
    # Spans that have begun, less those that have ended.
    ended = tf.math.bincount(
        ends,
        weights=tf.cast(starts, tf.int32),
        minlength=count + 1,
        maxlength=count + 1,
        axis=-1,
    )
    steps = tf.cast(starts, tf.int32) - ended[:, :-1]
    return tf.cumsum(steps, axis=1) > 0


def _any(x):
    return tf.reduce_any(x, axis=1, keepdims=True)


def _one_of_each_row(draw, allowed):
    """The allowed position of the least draw, in rows that have one."""
    draw = tf.where(allowed, draw, 2.0)
    least = tf.one_hot(tf.argmin(draw, 1), tf.shape(draw)[1], True, False)
    return least & allowed


def _replaced(element, inputs: dict, **changes):
    """The inputs with changes, in the form in which the element has them."""
    first = element[0] if isinstance(element, tuple) else element
    if isinstance(first, dict):
        return {**inputs, **changes}
    (changed,) = changes.values()
    return changed


def _check_batches(dataset: tf.data.Dataset) -> int | None:
    """The rows' length; raises a `ValueError` unless there are such rows."""
    inputs, _ = split_element(dataset.element_spec)
    spec = inputs.get("token_ids")
    if spec is None or spec.shape.rank != 2 or not spec.dtype.is_integer:
        raise ValueError(
            "Expected batches of integer token ids `(batch, length)`, or "
            "dicts with such `token_ids`, alone or in front of labels. "
            f"Received: elements {dataset.element_spec}"
        )
    return spec.shape[1]
