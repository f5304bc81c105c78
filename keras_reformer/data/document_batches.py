"""Documents of unequal length as batches of token ids and masks."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_reformer.data.byte_tokenizer import BYTE_OFFSET, ByteTokenizer


def documents(
    texts: Sequence[str | bytes], labels=None, *, tokenizer=None
) -> tf.data.Dataset:
    """A dataset of documents, each a vector of token ids.

    Args:
        texts: list of str or bytes.
        labels: Array whose first axis is the documents. Defaults to none.
        tokenizer: `SubwordTokenizer`, or any object whose `tokenize` turns
            bytes into int32 ids. Defaults to `ByteTokenizer()`.

    Returns:
        dataset: int32 vectors of token ids, or pairs of these and labels.

    Raises:
        ValueError: if there are no texts, or not as many labels.

    Example:

    >>> from keras_reformer.data import documents
    >>> [(ids, label)] = documents(["Hi"], [1]).as_numpy_iterator()
    >>> ids
    array([ 74, 107], dtype=int32)
    """
    if not len(texts) or (labels is not None and len(labels) != len(texts)):
        count = None if labels is None else len(labels)
        raise ValueError(
            "Expected at least one text, and as many labels. Received: "
            f"len(texts)={len(texts)}, len(labels)={count}"
        )
    strings = tf.data.Dataset.from_tensor_slices(list(texts))
    ids = strings.map(lambda text: token_ids(text, tokenizer))
    if labels is None:
        return ids
    return tf.data.Dataset.zip(
        (ids, tf.data.Dataset.from_tensor_slices(labels))
    )


def token_ids(text: tf.Tensor, tokenizer=None) -> tf.Tensor:
    """int32 ids `(number of tokens,)` of a scalar string tensor."""
    if tokenizer is None or isinstance(tokenizer, ByteTokenizer):
        values = tf.io.decode_raw(text, tf.uint8)
        return tf.cast(values, tf.int32) + BYTE_OFFSET
    # No function of the text alone as far as TensorFlow knows: a tokenizer
    # may sample.
    ids = tf.numpy_function(
        lambda text: np.asarray(tokenizer.tokenize(text), np.int32),
        [text],
        tf.int32,
    )
    ids.set_shape((None,))
    return ids


def pad_documents(
    dataset: tf.data.Dataset,
    length: int,
    batch_size: int,
    *,
    crop_seed: int | None = None,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches of documents, all padded or cut to one length.

    Args:
        dataset: What `documents` or a loader returns: vectors of token ids,
            or dicts of vectors by names that end with `token_ids`; alone, or
            in front of labels of a fixed shape.
        length: int. Tokens of a row.
        batch_size: int. Rows of a batch.
        crop_seed: int. Longer documents give a random part, which this seed
            and the document's number decide (put `repeat` before, so that
            each pass over the data draws anew). Defaults to their beginning.
        drop_remainder: bool. Whether to drop a last batch that is not full.
            Defaults to `False`.

    Returns:
        dataset: dicts of int32 `token_ids` and bool `padding_mask`, each of
            shape `(batch_size, length)`, alone or in front of labels: what
            models take. `encoder_token_ids` has its `encoder_padding_mask`.

    Raises:
        ValueError: if a size is below 1, the elements are no such documents,
            or several sequences of an element should be cropped at random.

    Example:

    >>> from keras_reformer.data import documents, pad_documents
    >>> dataset = pad_documents(documents(["abc", "a"], [1, 0]), 2, 2)
    >>> [(inputs, labels)] = dataset.as_numpy_iterator()
    >>> inputs["token_ids"]
    array([[ 99, 100],
           [ 99,   0]], dtype=int32)
    >>> inputs["padding_mask"]
    array([[ True,  True],
           [ True, False]])
    """
    check_positive(length=length, batch_size=batch_size)
    names = _names(dataset)
    if crop_seed is not None and len(names) > 1:
        raise ValueError(
            "Several sequences of an element have no random part in common. "
            f"Expected crop_seed=None. Received: crop_seed={crop_seed}, "
            f"elements with {names}"
        )

    def cut(number, element):
        inputs, labels = split_element(element)
        inputs = {
            name: _cut(ids, length, crop_seed, number)
            for name, ids in inputs.items()
        }
        return (_with_masks(inputs), *labels)

    rows = dataset.enumerate().map(cut)
    batches = rows.padded_batch(
        batch_size,
        padded_shapes=_padded_shapes(rows, length),
        drop_remainder=drop_remainder,
    )
    return join_elements(batches).prefetch(tf.data.AUTOTUNE)


def bucket_by_length(
    dataset: tf.data.Dataset,
    boundaries: Sequence[int],
    batch_sizes: Sequence[int] | int,
    *,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches of documents of similar length, padded to few lengths.

    A document goes to the first boundary that is as long, and its batch is
    padded to that. A compiled step is traced once for each boundary. Documents
    beyond the last boundary are cut to it.

    Args:
        dataset: as of `pad_documents`. The longest of several sequences
            counts, and all are padded to its boundary.
        boundaries: increasing ints. The lengths of batches.
        batch_sizes: int for each boundary, or one for all: rows of a batch.
            `[tokens // boundary for boundary in boundaries]` gives batches of
            equal cost.
        drop_remainder: bool. Whether to drop the last batches that are not
            full. Defaults to `False`.

    Returns:
        dataset: as of `pad_documents`, each batch of one of the lengths. The
            order follows from that of the documents alone.

    Raises:
        ValueError: if boundaries do not increase from 1 on, there are not as
            many batch sizes, or the elements are no documents.

    Example:

    >>> from keras_reformer.data import bucket_by_length, documents
    >>> dataset = documents(["abc", "a", "abcdef"])
    >>> [
    ...     batch["token_ids"].shape
    ...     for batch in bucket_by_length(dataset, (4, 8), 2)
    ... ]
    [TensorShape([2, 4]), TensorShape([1, 8])]
    """
    boundaries = [int(each) for each in boundaries]
    batch_sizes = _batch_sizes(batch_sizes, boundaries)
    names = _names(dataset)

    def cut(_, element):
        inputs, labels = split_element(element)
        inputs = {name: ids[: boundaries[-1]] for name, ids in inputs.items()}
        return (_with_masks(inputs), *labels)

    rows = dataset.enumerate().map(cut)
    batches = rows.bucket_by_sequence_length(
        lambda inputs, *labels: tf.reduce_max(
            [tf.size(inputs[name]) for name in names]
        ),
        # An element is below its boundary there, and at it here.
        bucket_boundaries=[each + 1 for each in boundaries],
        bucket_batch_sizes=[*batch_sizes, 1],
        pad_to_bucket_boundary=True,
        drop_remainder=drop_remainder,
    )
    return join_elements(batches).prefetch(tf.data.AUTOTUNE)


def check_positive(**sizes: int) -> None:
    """Raises a `ValueError` for the first size that is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {name}={value}"
            )


def split_element(element) -> tuple[dict, tuple]:
    """The inputs of a dataset's element, by name, and what comes behind."""
    inputs, *labels = element if isinstance(element, tuple) else (element,)
    if not isinstance(inputs, dict):
        inputs = {"token_ids": inputs}
    return inputs, tuple(labels)


def join_elements(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Elements `(inputs,)` become inputs alone, as `fit(x)` takes them."""
    if len(dataset.element_spec) == 1:
        return dataset.map(lambda inputs: inputs)
    return dataset


def _names(dataset: tf.data.Dataset) -> list[str]:
    """The names of an element's sequences; raises a `ValueError` if none."""
    inputs, labels = split_element(dataset.element_spec)
    vectors = all(
        spec.shape.rank == 1 and spec.dtype == tf.int32
        for spec in inputs.values()
    )
    named = all(name.endswith("token_ids") for name in inputs)
    fixed = all(
        spec.shape.is_fully_defined() for spec in tf.nest.flatten(labels)
    )
    if not (vectors and named and fixed):
        raise ValueError(
            "Expected int32 vectors of token ids, or dicts of them by names "
            "that end with 'token_ids', alone or in front of labels of a "
            f"fixed shape. Received: elements {dataset.element_spec}"
        )
    return list(inputs)


def _cut(ids, length: int, seed: int | None, number):
    if seed is None:
        return ids[:length]
    spare = tf.maximum(tf.size(ids) - length, 0)
    start = tf.random.stateless_uniform(
        (), [seed, number], 0, spare + 1, tf.int32, alg="philox"
    )
    return ids[start : start + length]


def _with_masks(inputs: dict) -> dict:
    masks = {
        name.removesuffix("token_ids") + "padding_mask": tf.ones_like(ids, bool)
        for name, ids in inputs.items()
    }
    return {**inputs, **masks}


def _padded_shapes(rows: tf.data.Dataset, length: int):
    inputs, *labels = rows.element_spec
    return (
        {name: (length,) for name in inputs},
        *tf.nest.map_structure(lambda spec: spec.shape, labels),
    )


def _batch_sizes(batch_sizes, boundaries: list[int]) -> list[int]:
    if isinstance(batch_sizes, int):
        batch_sizes = [batch_sizes] * len(boundaries)
    sizes = [int(size) for size in batch_sizes]
    increasing = sorted(set(boundaries)) == boundaries
    if not boundaries or not increasing or boundaries[0] < 1:
        raise ValueError(
            "Expected increasing lengths, from 1 on. Received: "
            f"boundaries={boundaries}"
        )
    if len(sizes) != len(boundaries) or min(sizes) < 1:
        raise ValueError(
            "Expected a positive batch size for each boundary. Received: "
            f"batch_sizes={sizes}, boundaries={boundaries}"
        )
    return sizes
