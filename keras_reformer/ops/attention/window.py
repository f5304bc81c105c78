"""Windows of neighbouring chunks, from either side.

A query's window is the `before` chunks of keys before its own chunk, its own
and the `after` chunks after it. Turned round, a key is in view of the chunks
of queries from `after` before its own to `before` after it. The forward pass
looks from the queries (`by_query`), the backward pass from the keys
(`by_key`): both get one product with a whole window, and whatever belongs to
a chunk is complete where it is computed.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    PairMask,
    TokenInfo,
    allowed,
)
from keras_reformer.ops.loops.shapes import Length, map_tensors, size


class Window(NamedTuple):
    """Which keys a query may see.

    Attributes:
        chunk_length: int. Positions in a chunk.
        before: int. Chunks before the query's own.
        after: int. Chunks after the query's own.
        causal: bool. Later positions are hidden.
        sees_itself: bool. Whether a token's own key is visible.
        same_bucket: bool. Whether only keys of the query's bucket are, up to
            `before * chunk_length` ranks back and `after * chunk_length`
            forward.
    """

    chunk_length: int
    before: int
    after: int
    causal: bool
    sees_itself: bool
    same_bucket: bool

    @property
    def offsets(self) -> range:
        """The window's chunks, from the query's own."""
        return range(-self.before, self.after + 1)

    @property
    def reach(self) -> int:
        """Chunks in a window besides the own one."""
        return self.before + self.after


class PairGeometry(NamedTuple):
    """Pairs of one chunk and a window: a matrix of static numbers each.

    Attributes:
        query: the query's rank, from the start of its first chunk.
        distance: ranks from the key to the query.
        slot: the key's place in the query's window.
    """

    query: tf.Tensor
    distance: tf.Tensor
    slot: tf.Tensor


def by_query(window: Window) -> PairGeometry:
    """A chunk of queries, and the keys in their windows."""
    length = window.chunk_length
    query = tf.range(length)[:, None]
    slot = tf.range((window.reach + 1) * length)[None, :]
    key = slot - window.before * length
    return PairGeometry(query, query - key, slot)


def by_key(window: Window) -> PairGeometry:
    """A chunk of keys, and the queries whose windows hold them."""
    length = window.chunk_length
    key = tf.range(length)[:, None]
    query = tf.range((window.reach + 1) * length)[None, :]
    distance = query - key - window.after * length
    slot = key + (window.reach - query // length) * length
    return PairGeometry(query, distance, slot)


class WindowAttention(NamedTuple):
    """Attention of chunks of queries to their windows, and its gradient.

    Attributes:
        window: the window.
        circle: Number of ranks, after which they begin again.
        dropping: dropout of the weights, or None.
        count: function of two Tokens, what to divide weights by, or None.
        bias: what else to add to scores, or None.
        probability: function of scores, queries' inverse lengths and numbers
            of rows, what else to divide weights by, or None.
    """

    window: Window
    circle: Length
    dropping: AttentionDropout | None = None
    count: Callable[[TokenInfo, TokenInfo], tf.Tensor] | None = None
    bias: PositionBias | None = None
    probability: Callable[..., tf.Tensor] | None = None

    def attend(
        self, queries, keys, values, tokens, rows, chunk, inverse_norms=None
    ):
        """The forward pass of `n` chunks of queries.

        Args:
            queries: `(r, n, c, key_dim)`.
            keys: `(r, n, (reach + 1) * c, key_dim)`: windows.
            values: `(r, n, (reach + 1) * c, value_dim)`: windows.
            tokens: of the keys, `(r, n + reach, c)`.
            rows: int32 `(r,)`. Numbers of the rows.
            chunk: Number of the first chunk of queries.
            inverse_norms: `(r, n, c)`, of the queries, for `probability`.

        Returns:
            output and log-sum-exp, as of `kernel.attend`.
        """
        window, chunks = self.window, size(queries, 1)
        pairs = self._pairs(
            by_query(window),
            crop_chunks(tokens, window.before, chunks).along(-2),
            windows(tokens, window).along(-1),
            rows,
            chunk + tf.range(chunks),
            queries.dtype,
        )
        pairs = self._with_probability(pairs, inverse_norms, -1, rows)
        return kernel.attend(queries, keys, values, pairs)

    def gradient(
        self,
        queries,
        keys,
        values,
        upstream,
        tokens,
        rows,
        chunk,
        count,
        inverse_norms=None,
    ):
        """The backward pass of `n` chunks of queries and of keys.

        Keys need the queries around them and queries the keys around them,
        so the arguments hold `reach` chunks besides, or twice as many.

        Args:
            queries: `(r, n + reach, (reach + 1) * c, key_dim)`: windows.
            keys: `(r, n + reach, c, key_dim)`.
            values: `(r, n + reach, c, value_dim)`.
            upstream: of the queries: windows.
            tokens: of the queries, `(r, n + 2 * reach, c)`.
            rows: int32 `(r,)`. Numbers of the rows.
            chunk: Number of the first of the `n` chunks.
            count: Number of them that exist.
            inverse_norms: of the queries, for `probability`: windows.

        Returns:
            Gradients of the `n` chunks by queries, keys and values, and of
            their keys' scores by what the bias is made of.
        """
        window, chunks = self.window, size(keys, 1)
        query = windows(tokens, window).along(-1)
        key = crop_chunks(tokens, window.after, chunks).along(-2)
        pairs = self._pairs(
            by_key(window),
            query,
            key,
            rows,
            chunk - window.reach + tf.range(chunks),
            keys.dtype,
        )
        pairs = self._with_probability(pairs, inverse_norms, -2, rows)
        d_keys, d_values, d_scores = kernel.attend_gradient(
            queries, keys, values, upstream, pairs
        )
        d_queries = _queries_gradient(d_scores, keys, window)
        # Of the chunks around, other steps take account.
        d_keys, d_values, d_scores, query, key = crop_chunks(
            (d_keys, d_values, d_scores, query, key),
            window.before,
            chunks - window.reach,
        )
        d_bias = []
        if self.bias is not None:
            there = tf.range(size(d_scores, 1)) < count
            d_scores = tf.where(there[:, None, None], d_scores, 0.0)
            d_bias = self.bias.gradient(query, key, rows, d_scores)
        return d_queries, d_keys, d_values, *d_bias

    def _pairs(self, shape, query, key, rows, chunks, dtype) -> PairMask:
        """Which pairs see each other; `chunks` holds each first query's."""
        seen = _seen(self.window, shape, query, key)
        bias, kept, count = None, None, None
        if self.count is not None:
            count = self.count(query, key)
        if self.bias is not None:
            bias = tf.cast(self.bias.of_rows(query, key, rows), dtype)
        if self.dropping is not None:
            first = chunks[:, None, None] * self.window.chunk_length
            kept = self.dropping.kept(
                rows[:, None, None, None],
                (first + shape.query) % self.circle,
                shape.slot,
                self.window.chunk_length,
                dtype,
            )
        return PairMask(seen, bias, kept, count=count)

    def _with_probability(self, pairs, inverse_norms, axis, rows) -> PairMask:
        if self.probability is None:
            return pairs
        inverse_norms = tf.expand_dims(inverse_norms, axis)
        return pairs._replace(
            probability=lambda scores: self.probability(
                scores, inverse_norms, rows
            )
        )


def _seen(
    window: Window, shape: PairGeometry, query: TokenInfo, key: TokenInfo
):
    if not window.same_bucket:
        return allowed(window.causal, window.sees_itself, query, key)
    # Ranks in a bucket are in the order of positions.
    return _near(window, shape.distance) & (query.bucket == key.bucket)


def _near(window: Window, distance: tf.Tensor) -> tf.Tensor:
    near = distance <= window.before * window.chunk_length
    if window.causal:
        return near & (distance >= (0 if window.sees_itself else 1))
    near &= distance >= -window.after * window.chunk_length
    return near if window.sees_itself else near & (distance != 0)


def windows(x, window: Window):
    """`(r, n + reach, c, ...)` to `(r, n, (reach + 1) * c, ...)`."""
    if not window.reach:
        return x

    def side_by_side(part):
        chunks = size(part, 1) - window.reach
        firsts = range(window.reach + 1)
        return tf.concat([crop_chunks(part, i, chunks) for i in firsts], axis=2)

    return map_tensors(side_by_side, x)


def crop_chunks(x, first: int, chunks: Length):
    """A run of chunks."""
    return map_tensors(lambda part: part[:, first : first + chunks], x)


def slice_chunk(x: tf.Tensor, index: int, window: Window) -> tf.Tensor:
    """The chunk at one place in windows."""
    length = window.chunk_length
    return x[:, :, index * length : (index + 1) * length]


def _queries_gradient(
    d_scores: tf.Tensor, keys: tf.Tensor, window: Window
) -> tf.Tensor:
    """Sums what every chunk of keys says of the queries that see it.

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
