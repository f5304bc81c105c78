"""Tokens of a sequence: what masks need of them, and heads as rows."""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.segments import Segments
from keras_reformer.ops.loops.shapes import Length, map_tensors, size


class TokenInfo(NamedTuple):
    """What masks need to know of tokens, each field `(..., tokens)`.

    Attributes:
        position: int32. Position in the sequence; -1 hides a key. None where
            buckets and ranks tell all.
        bucket: int32. Bucket in this round; None where buckets do not matter.
        coordinates: tuple of int32, one a round, from
            `duplicates.window_coordinate`. None where a pair that two rounds
            show counts twice.
        segment: int32. Number of the packed document; None where there is
            but one.
        chunk: int32. From `Segments.chunks`, where a window has chunks of
            other documents to either side; else None.
    """

    position: tf.Tensor | None = None
    bucket: tf.Tensor | None = None
    coordinates: tuple[tf.Tensor, ...] | None = None
    segment: tf.Tensor | None = None
    chunk: tf.Tensor | None = None

    def along(self, axis: int) -> "TokenInfo":
        """Lies along one of a matrix's last two axes: -2 rows, -1 columns."""
        other = -3 - axis
        return map_tensors(lambda x: tf.expand_dims(x, other), self)

    def chunk_at(self, index) -> "TokenInfo":
        """One of the chunks `(g, n, c)`."""
        return map_tensors(lambda x: x[:, index], self)


def merge_heads_into_batch(x: tf.Tensor) -> tf.Tensor:
    """`(b, h, t, d)` to `(g, t, d)`."""
    return tf.reshape(x, [size(x, 0) * size(x, 1), size(x, 2), size(x, 3)])


def token_positions(
    mask: tf.Tensor | None,
    rows: Length,
    num_heads: int,
    length: Length,
    segments: Segments | None = None,
) -> tf.Tensor:
    """Positions `(g, t)` of the tokens in their documents, -1 where masked."""
    positions = tf.range(length) if segments is None else segments.positions
    if mask is not None:
        positions = tf.where(mask, positions, -1)
    elif segments is None:
        return tf.broadcast_to(positions, [rows, length])
    return tf.repeat(positions, num_heads, axis=0)


def token_info(
    mask: tf.Tensor | None,
    rows: Length,
    num_heads: int,
    length: Length,
    segments: Segments | None = None,
) -> TokenInfo:
    """Positions, and the documents that tokens are in: `(g, t)`."""
    positions = token_positions(mask, rows, num_heads, length, segments)
    if segments is None:
        return TokenInfo(positions)
    segment = tf.repeat(segments.number, num_heads, axis=0)
    return TokenInfo(positions, segment=segment)
