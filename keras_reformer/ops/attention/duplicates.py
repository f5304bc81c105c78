"""Counts duplicate query-key pairs across hash rounds."""

from typing import Any

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.sorting import invert_permutation
from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.attention.window import (
    Window,
    is_within,
    visible_by_position,
)
from keras_reformer.ops.loops.shapes import (
    Length,
    ceil_div,
    map_tensors,
    size,
    softmax_dtype,
)


def window_coordinate(
    window: Window, ranks: tf.Tensor, buckets: tf.Tensor
) -> tf.Tensor:
    """One number a token, whose difference tells what a window shows.

    A query sees a key in a round where the query's coordinate minus the key's
    is in `_span(window)`. Coordinates are numbers of chunks or, with windows
    of buckets, ranks, with a window's width between one bucket and the next.

    Args:
        window: which keys a query sees in a round.
        ranks: int32 tensor, the ranks of tokens in a round's order.
        buckets: int32 tensor of the same shape.

    Returns:
        int32 tensor of the same shape.
    """
    if window.same_bucket:
        return ranks + buckets * max(map(abs, _span(window)))
    return ranks // window.chunk_length


def window_coordinates(
    window: Window, orders: tf.Tensor, buckets: tf.Tensor
) -> tf.Tensor:
    """Every position's coordinates in all rounds.

    Args:
        window: which keys a query sees in a round.
        orders: int32 `(g, num_hashes, t)`: at each rank, the position there.
        buckets: int32 `(g, num_hashes, t)`: at each position, its bucket.

    Returns:
        int32 tensor of shape `(g, t, num_hashes)`.
    """
    flat = tf.reshape(orders, [-1, size(orders, 2)])
    ranks = tf.reshape(invert_permutation(flat), tf.shape(orders))
    coordinates = window_coordinate(window, ranks, buckets)
    return tf.transpose(coordinates, (0, 2, 1))


def _span(window: Window) -> tuple[int, int]:
    """Least and greatest difference of coordinates where a key is shown."""
    unit = window.chunk_length if window.same_bucket else 1
    return -window.after * unit, window.before * unit


def count_duplicates(
    window: Window,
    query: TokenInfo,
    key: TokenInfo,
    length: Length,
    wrap: bool,
) -> tf.Tensor:
    """Number of times that the windows of all rounds show a key to a query.

    Without `wrap` a round shows a key once or not at all; on a ring of rounds
    its chunk may be a neighbour on both sides.

    Args:
        window: which keys a query sees in a round.
        query: tokens with `coordinates`.
        key: the same for keys; the two broadcast against each other.
        length: Number of positions in the sequence.
        wrap: bool. Whether rounds are one ring of chunks.

    Returns:
        int32 tensor of the tokens' common shape.
    """
    coordinates: Any = query.coordinates
    num_hashes = len(coordinates)
    chunks = ceil_div(length, window.chunk_length)
    # A window of `before` chunks begins at most as many rounds before.
    offsets = window.offsets if wrap else range(1)
    count = tf.zeros((), tf.int32)
    for index, coordinate in enumerate(coordinates):
        for offset in offsets:
            other = key.coordinates[(index + offset) % num_hashes]
            difference = coordinate - offset * chunks - other
            shown = is_within(_span(window), difference)
            count += tf.cast(shown, tf.int32)
    return count


def attention_of_rows(
    query_key: tf.Tensor,
    orders: tf.Tensor,
    buckets: tf.Tensor,
    rows: tf.Tensor,
    window: Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    discount_duplicates: bool = False,
    importance: Importance | None = None,
    bias: PositionBias | None = None,
) -> tf.Tensor:
    """Attention weights of a few queries over all positions.

    What `lsh_attention` multiplies values by, for pictures and tests; its
    size is that of the chosen rows, never length by length.

    Args:
        query_key: Tensor of shape `(batch, num_heads, length, key_dim)`.
        orders: int32 `(batch, num_heads, num_hashes, length)`.
        buckets: int32 of the same shape.
        rows: int32 `(count,)`: positions of the queries.
        window: as in `lsh_attention`.
        mask: as in `lsh_attention`.
        wrap: as in `lsh_attention`.
        discount_duplicates: as in `lsh_attention`.
        importance: as in `lsh_attention`.
        bias: as in `lsh_attention`.

    Returns:
        Tensor of shape `(batch, num_heads, count, length)`; each row sums to
        one, or to zero where the query is masked.
    """
    dtype = softmax_dtype(query_key.dtype)
    query_key = tf.cast(query_key, dtype)
    keys = _token_info(orders, buckets, window, mask)
    queries = map_tensors(lambda x: tf.gather(x, rows, axis=2), keys)
    queries, keys = queries.along(-2), keys.along(-1)
    is_global = _is_global(window, queries, keys)
    count = count_duplicates(window, queries, keys, size(query_key, 2), wrap)
    if discount_duplicates or importance is not None:
        count = tf.minimum(count, 1)
    if is_global is not None:
        count = tf.where(is_global, 1, count)
    visible = visible_by_position(
        window.causal, window.sees_itself, queries, keys
    )
    count = tf.where(visible, count, 0)
    query = tf.gather(query_key, rows, axis=2)
    scores = tf.matmul(
        query, kernel.to_unit_length(query_key), transpose_b=True
    )
    probability = 1.0
    if importance is not None:
        probability = _probability(
            importance, window, scores, query, keys.position, is_global
        )
    if bias is not None:
        heads = tf.range(bias.num_heads)[:, None, None]
        scores += tf.cast(bias.of(queries, keys, heads), dtype)
    fully_masked = tf.reduce_sum(count, axis=-1, keepdims=True) == 0
    itself = queries.position == keys.position
    count = tf.where(fully_masked & itself & (keys.position >= 0), 1, count)
    shown = kernel.add_log(
        tf.zeros((), dtype), tf.cast(count, dtype) / probability
    )
    weights = tf.nn.softmax(scores + shown)
    return tf.where(queries.position >= 0, weights, 0.0)


def _is_global(
    window: Window, queries: TokenInfo, keys: TokenInfo
) -> tf.Tensor | None:
    """Pairs that are seen because one is a global token, or None."""
    if not window.num_global:
        return None
    is_global = keys.position < window.num_global
    if window.causal:
        return is_global
    return is_global | (queries.position < window.num_global)


def _probability(
    importance, window, scores, query, positions, is_global
) -> tf.Tensor:
    lengths = tf.math.count_nonzero(
        positions >= 0, axis=-1, keepdims=True, dtype=tf.int32
    )
    shown = importance.probability(
        scores,
        1 / kernel.norms_of(query)[..., None],
        importance.shown_by_chance(window, lengths, scores.dtype),
    )
    if is_global is None:
        return shown
    return tf.where(is_global, tf.ones((), shown.dtype), shown)


def _token_info(orders, buckets, window, mask) -> TokenInfo:
    """Every position's token: `(batch, num_heads, length)`."""
    shape = tf.shape(orders)
    flat = tf.reshape(orders, (-1, shape[3]))
    ranks = tf.reshape(invert_permutation(flat), shape)
    coordinates = window_coordinate(window, ranks, buckets)
    positions = tf.broadcast_to(
        tf.range(shape[3]), [shape[0], shape[1], shape[3]]
    )
    if mask is not None:
        positions = tf.where(mask[:, None, :], positions, -1)
    by_round = tf.unstack(coordinates, orders.shape[2], axis=2)
    return TokenInfo(positions, coordinates=tuple(by_round))
