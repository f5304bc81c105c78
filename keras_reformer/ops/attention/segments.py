"""Documents packed into rows, told apart by segment ids."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.loops.shapes import size
from keras_reformer.ops.vocabulary import require


class Segments(NamedTuple):
    """The documents of each row: runs of equal segment ids.

    Each field is int32 `(batch, length)`, and tells of the document that a
    token is in.

    Attributes:
        number: its number in the row.
        first: position of its first token in the row.
        end: position after its last token.
    """

    number: tf.Tensor
    first: tf.Tensor
    end: tf.Tensor

    @classmethod
    def of(cls, segment_ids: tf.Tensor) -> "Segments":
        """The documents of int32 `(batch, length)` segment ids.

        Only where ids change matters: a run of equal ids is a document.
        """
        rows, length = size(segment_ids, 0), size(segment_ids, 1)
        change = segment_ids[:, 1:] != segment_ids[:, :-1]
        begins = tf.pad(tf.cast(change, tf.int32), [[0, 0], [1, 0]])
        number = tf.cumsum(begins, axis=1)
        # The least position of each number; one more that no token has.
        slot = number + (length + 1) * tf.range(rows)[:, None]
        positions = tf.broadcast_to(tf.range(length), tf.shape(number))
        firsts = tf.math.unsorted_segment_min(
            tf.reshape(positions, [-1]),
            tf.reshape(slot, [-1]),
            rows * (length + 1),
        )
        end = tf.minimum(tf.gather(firsts, slot + 1), length)
        return cls(number, tf.gather(firsts, slot), end)

    @property
    def positions(self) -> tf.Tensor:
        """Positions in the documents, which begin at 0 in each."""
        return tf.range(size(self.first, 1)) - self.first

    def chunks(self, chunk_length: int, apart: int) -> tf.Tensor:
        """Numbers of chunks that begin anew with each document.

        Args:
            chunk_length: int. Tokens in a chunk.
            apart: int. Least difference between numbers of two documents.
        """
        return self.positions // chunk_length + apart * self.first


def check_segment_ids(
    segment_ids: tf.Tensor, mask: tf.Tensor | None
) -> list[tf.Operation]:
    """Refuses segment ids that decrease, and documents in several pieces.

    Args:
        segment_ids: int32 tensor of shape `(batch, length)`.
        mask: Boolean tensor of the same shape, True at valid tokens, or None.
            Ids of masked tokens may be any, but inside of a document.

    Returns:
        The assertion, in a graph; nothing eagerly.

    Raises:
        ValueError: eagerly.
    """
    number, valid = Segments.of(segment_ids).number, None
    if mask is not None:
        # Valid tokens first, in their order.
        order = tf.argsort(tf.cast(~mask, tf.int32), axis=1, stable=True)
        segment_ids, number, valid = (
            tf.gather(x, order, batch_dims=1)
            for x in (segment_ids, number, mask)
        )
    before, after = segment_ids[:, :-1], segment_ids[:, 1:]
    same_run = number[:, 1:] == number[:, :-1]
    allowed = (after > before) | ((after == before) & same_run)
    if valid is not None:
        allowed |= ~valid[:, 1:]
    return require(
        allowed,
        "segment_ids",
        after,
        "Segment ids must not decrease along a row, and those of a document "
        "must be equal without a gap, such as [0, 0, 1, 1, 1, 2].",
    )
