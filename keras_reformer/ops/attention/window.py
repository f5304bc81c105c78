"""The window's geometry: which key a query sees, from either side.

A query's window is the `before` chunks of keys before its own chunk, its own
and the `after` chunks after it. Turned round, a key is in the windows of the
chunks of queries from `after` before its own to `before` after it. The
forward pass takes queries with the keys in their windows (`by_query`), the
backward pass keys with the queries whose windows hold them (`by_key`): both
get one product with a whole window, and whatever belongs to a chunk is
complete where it is computed.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.loops.shapes import Length, map_tensors, size


class Window(NamedTuple):
    """Which keys a query may see.

    Attributes:
        chunk_length: int. Tokens in a chunk.
        before: int. Chunks before the query's own.
        after: int. Chunks after the query's own.
        causal: bool. Later positions are hidden.
        sees_itself: bool. Whether a token's own key is visible.
        same_bucket: bool. Whether only keys of the query's bucket are, up to
            `before * chunk_length` ranks back and `after * chunk_length`
            forward.
        num_global: int. Tokens at the beginning that windows hide: all
            queries see them elsewhere (`global_tokens.py`).
        unaligned: bool. Whether `TokenInfo.chunk` decides; see
            `for_documents`.
    """

    chunk_length: int
    before: int
    after: int
    causal: bool
    sees_itself: bool
    same_bucket: bool
    num_global: int = 0
    unaligned: bool = False

    def for_documents(self) -> "Window":
        """The window for chunks that begin anew with each packed document.

        Where they begin in a row between its chunk borders, the chunks that
        a token sees lie in one chunk more of the row to either side.
        """
        after = 0 if self.causal else self.after + 1
        return self._replace(
            before=self.before + 1, after=after, unaligned=True
        )

    @property
    def offsets(self) -> range:
        """The window's chunks, from the query's own."""
        return range(-self.before, self.after + 1)

    @property
    def reach(self) -> int:
        """Chunks in a window besides the query's own."""
        return self.before + self.after


class PairGeometry(NamedTuple):
    """Pairs of one chunk and a window: static matrices.

    Attributes:
        query: the query's rank, from the start of its first chunk.
        distance: the query's rank minus the key's.
        slot: the key's index in the query's window.
    """

    query: tf.Tensor
    distance: tf.Tensor
    slot: tf.Tensor


def by_query(window: Window) -> PairGeometry:
    """A chunk of queries (rows) and the keys in their windows (columns)."""
    length = window.chunk_length
    query = tf.range(length)[:, None]
    slot = tf.range((window.reach + 1) * length)[None, :]
    key = slot - window.before * length
    return PairGeometry(query, query - key, slot)


def by_key(window: Window) -> PairGeometry:
    """A chunk of keys (rows) and the queries that see them (columns)."""
    length = window.chunk_length
    key = tf.range(length)[:, None]
    query = tf.range((window.reach + 1) * length)[None, :]
    distance = query - key - window.after * length
    slot = key + (window.reach - query // length) * length
    return PairGeometry(query, distance, slot)


def visible_pairs(
    window: Window, geometry: PairGeometry, query: TokenInfo, key: TokenInfo
) -> tf.Tensor:
    """Whether each query of a window's pairs sees the key."""
    if not window.same_bucket:
        visible = visible_by_position(
            window.causal, window.sees_itself, query, key, window.num_global
        )
        if not window.unaligned:
            return visible
        least = 0 if window.causal else 1 - window.after
        span = least, window.before - 1
        return visible & is_within(span, query.chunk - key.chunk)
    # Ranks in a bucket are in the order of positions.
    near = _within_reach(window, geometry.distance)
    visible = near & (query.bucket == key.bucket)
    if not window.num_global:
        return visible
    return visible & (key.position >= window.num_global)


def visible_by_position(
    causal: bool,
    sees_itself: bool,
    query: TokenInfo,
    key: TokenInfo,
    first: int = 0,
) -> tf.Tensor:
    """Whether positions alone let a query see a key, from `first` on."""
    visible = key.position >= first
    if query.segment is not None:
        visible &= query.segment == key.segment
    if causal and sees_itself:
        return visible & (key.position <= query.position)
    if causal:
        return visible & (key.position < query.position)
    if sees_itself:
        return visible
    return visible & (key.position != query.position)


def is_within(span: tuple[int, int], difference: tf.Tensor) -> tf.Tensor:
    """Whether differences are in a span, both ends included."""
    least, greatest = span
    # Below the least a difference becomes a huge number: one comparison.
    above = tf.bitcast(difference - least, tf.uint32)
    return above <= tf.constant(greatest - least, tf.uint32)


def _within_reach(window: Window, distance: tf.Tensor) -> tf.Tensor:
    near = distance <= window.before * window.chunk_length
    if window.causal:
        return near & (distance >= (0 if window.sees_itself else 1))
    near &= distance >= -window.after * window.chunk_length
    return near if window.sees_itself else near & (distance != 0)


def windows(x: Any, window: Window) -> Any:
    """Chunks side by side, for a structure of tensors.

    `(r, n + reach, c, ...)` to `(r, n, (reach + 1) * c, ...)`.
    """
    if not window.reach:
        return x

    def side_by_side(part):
        chunks = size(part, 1) - window.reach
        firsts = range(window.reach + 1)
        return tf.concat([crop_chunks(part, i, chunks) for i in firsts], axis=2)

    return map_tensors(side_by_side, x)


def crop_chunks(x: Any, first: int, chunks: Length) -> Any:
    """A run of chunks, `(r, chunks, c, ...)`, of a structure of tensors."""
    return map_tensors(lambda part: part[:, first : first + chunks], x)


def slice_chunk(x: tf.Tensor, index: int, window: Window) -> tf.Tensor:
    """One of the chunks of windows, `(r, n, c, ...)`."""
    length = window.chunk_length
    return x[:, :, index * length : (index + 1) * length]


def sum_over_windows(
    d_scores: tf.Tensor, keys: tf.Tensor, window: Window
) -> tf.Tensor:
    """Gradient with respect to queries: a sum over the chunks they see.

    Args:
        d_scores: `(r, n + reach, c, (reach + 1) * c)`, keys by rows.
        keys: `(r, n + reach, c, d)`.
        window: the window.

    Returns:
        Tensor of shape `(r, n, c, d)`.
    """
    chunks = size(keys, 1) - window.reach
    parts = tf.matmul(d_scores, keys, transpose_a=True)
    return sum(
        slice_chunk(
            crop_chunks(parts, first, chunks), window.reach - first, window
        )
        for first in range(window.reach + 1)
    )
