"""Documents of any length as rows of one length, several in a row."""

from typing import NamedTuple

import tensorflow as tf


def pack_documents(
    documents: tf.data.Dataset,
    length: int,
    *,
    open_rows: int = 16,
    padding_id: int = 0,
) -> tf.data.Dataset:
    """Packs documents into rows, for models that take `segment_ids`.

    A document goes into the fullest of a few open rows that has room for it.
    Where none has, the fullest one is given out and a new row begins.
    Documents longer than a row are cut into pieces, each of which counts as
    a document; empty ones are left out.

    Args:
        documents: dataset of integer tensors of shape `(number of tokens,)`.
        length: int. Tokens in a row.
        open_rows: int. The more, the less padding, and the further documents
            move from their order. Defaults to `16`.
        padding_id: int. Token after the last document. Defaults to `0`.

    Returns:
        dataset: dicts of rows of shape `(length,)`, to be batched:
            `token_ids`, int32; `segment_ids`, int32, which count a row's
            documents from 0 and then its padding; `padding_mask`, bool, True
            at documents.

    Raises:
        ValueError: if a number is not positive, or the dataset's elements are
            no integer tensors of one axis.

    Example:

    >>> texts = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10]]
    >>> documents = tf.data.Dataset.from_tensor_slices(
    ...     tf.ragged.constant(texts)
    ... )
    >>> rows = keras_reformer.data.pack_documents(documents, length=6)
    >>> for row in rows:
    ...     print(row["token_ids"].numpy(), row["segment_ids"].numpy())
    [ 1  2  3  4  5 10] [0 0 0 1 1 2]
    [6 7 8 9 0 0] [0 0 0 0 1 1]
    """
    for name, value in (("length", length), ("open_rows", open_rows)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. Received: {name}={value}"
            )
    _check_documents(documents)
    pieces = documents.flat_map(lambda document: _pieces(document, length))
    # One empty piece for each open row asks for it at the end.
    ends = tf.data.Dataset.from_tensors(tf.zeros((0,), tf.int32))
    packed = pieces.concatenate(ends.repeat(open_rows)).scan(
        _OpenRows.empty(open_rows, length, padding_id),
        lambda rows, piece: rows.add(piece, padding_id),
    )
    return packed.filter(lambda row, given_out: given_out).map(
        lambda row, given_out: row
    )


class _OpenRows(NamedTuple):
    """Rows that documents are still put into.

    Attributes:
        tokens: int32 `(rows, length)`.
        segments: int32 `(rows, length)`: after the last document, its padding.
        filled: int32 `(rows,)`. Tokens in each.
        count: int32 `(rows,)`. Documents in each.
    """

    tokens: tf.Tensor
    segments: tf.Tensor
    filled: tf.Tensor
    count: tf.Tensor

    @classmethod
    def empty(cls, rows: int, length: int, padding_id: int) -> "_OpenRows":
        numbers = tf.zeros((rows,), tf.int32)
        segments = tf.zeros((rows, length), tf.int32)
        return cls(segments + padding_id, segments, numbers, numbers)

    def add(self, piece: tf.Tensor, padding_id: int) -> tuple:
        """The rows with a piece, the row given out for it, and whether."""
        size = tf.size(piece)
        length = self.tokens.shape[1]
        # An empty piece is the end, and fits into no row.
        fits = (self.filled + size <= length) & (size > 0)
        fullest = tf.argmax(
            tf.where(fits, self.filled, -1), output_type="int32"
        )
        has_room = tf.reduce_any(fits)
        index = tf.where(
            has_room, fullest, tf.argmax(self.filled, output_type="int32")
        )
        tokens, segments, filled, count = (x[index] for x in self)
        row = {
            "token_ids": tokens,
            "segment_ids": segments,
            "padding_mask": tf.range(length) < filled,
        }
        before = tf.where(has_room, filled, 0)
        number = tf.where(has_room, count, 0)
        rest = length - before - size
        changed = _OpenRows(
            tf.concat([tokens[:before], piece, tf.fill([rest], padding_id)], 0),
            tf.concat(
                [
                    segments[:before],
                    tf.fill([size], number),
                    tf.fill([rest], number + 1),
                ],
                0,
            ),
            before + size,
            number + 1,
        )
        rows = _OpenRows(
            *(
                tf.tensor_scatter_nd_update(x, [[index]], new[None])
                for x, new in zip(self, changed, strict=True)
            )
        )
        return rows, (row, ~has_room & (filled > 0))


def _pieces(document: tf.Tensor, length: int) -> tf.data.Dataset:
    """The document in pieces of at most a row's length."""
    document = tf.cast(document, tf.int32)
    starts = tf.data.Dataset.range(
        0, tf.size(document, out_type=tf.int64), length
    )
    return starts.map(lambda start: document[start : start + length])


def _check_documents(documents: tf.data.Dataset) -> None:
    spec = getattr(documents, "element_spec", None)
    fits = (
        isinstance(spec, tf.TensorSpec | tf.RaggedTensorSpec)
        and spec.shape.rank in (1, None)
        and spec.dtype.is_integer
    )
    if not fits:
        raise ValueError(
            "`documents` must be a `tf.data.Dataset` of token ids, an integer "
            "tensor of shape (number of tokens,) for each document. Received: "
            f"documents of {spec if spec is not None else documents!r}"
        )
