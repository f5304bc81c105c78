"""How often hash rounds show a key to a query, and what comes of it."""

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.sorting import invert_permutation
from keras_reformer.ops.attention.window import Window
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
    """One number that tells whether a window shows a key to a query.

    It does where the query's place less the key's is in `_span(window)`:
    places are chunks or, in a bucket, ranks, with a window's breadth between
    one bucket and the next.

    Args:
        window: what a round shows.
        ranks: int32 tensor, the ranks of tokens in a round's order.
        buckets: int32 tensor of the same shape.

    Returns:
        int32 tensor of the same shape.
    """
    if window.same_bucket:
        return ranks + buckets * max(map(abs, _span(window)))
    return ranks // window.chunk_length


def _span(window: Window) -> tuple[int, int]:
    """Least and greatest difference of places where a key is shown."""
    unit = window.chunk_length if window.same_bucket else 1
    return -window.after * unit, window.before * unit


def count_duplicates(
    window: Window,
    query: kernel.TokenInfo,
    key: kernel.TokenInfo,
    length: Length,
    wrap: bool,
) -> tf.Tensor:
    """Number of times that all rounds' windows show a key to a query.

    Computed from each token's places in all rounds. Without `wrap` a round
    shows a key once or not at all; on a circle of rounds it may be met from
    two sides.

    Args:
        window: what a round shows.
        query: Tokens with `places`.
        key: the same for keys; the two broadcast against each other.
        length: Number of positions in the sequence.
        wrap: bool. Whether rounds are one circle of chunks.

    Returns:
        int32 tensor of the tokens' common shape.
    """
    num_hashes = len(query.places)
    chunks = ceil_div(length, window.chunk_length)
    # A window of `before` chunks begins at most as many rounds before.
    turns = window.offsets if wrap else range(1)
    count = tf.zeros((), tf.int32)
    for index, place in enumerate(query.places):
        for turn in turns:
            other = key.places[(index + turn) % num_hashes]
            shown = _within(_span(window), place - turn * chunks - other)
            count += tf.cast(shown, tf.int32)
    return count


def _within(span: tuple[int, int], difference: tf.Tensor) -> tf.Tensor:
    least, greatest = span
    # Below the least a difference becomes a huge number: one comparison.
    above = tf.bitcast(difference - least, tf.uint32)
    return above <= tf.constant(greatest - least, tf.uint32)


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
    keys = _all_tokens(orders, buckets, window, mask)
    queries = map_tensors(lambda x: tf.gather(x, rows, axis=2), keys)
    queries, keys = queries.along(-2), keys.along(-1)
    count = count_duplicates(window, queries, keys, size(query_key, 2), wrap)
    if discount_duplicates or importance is not None:
        count = tf.minimum(count, 1)
    seen = kernel.allowed(window.causal, window.sees_itself, queries, keys)
    count = tf.where(seen, count, 0)
    query = tf.gather(query_key, rows, axis=2)
    scores = tf.matmul(
        query, kernel.to_unit_length(query_key), transpose_b=True
    )
    probability = 1.0
    if importance is not None:
        probability = _probability(
            importance, window, scores, query, keys.position
        )
    if bias is not None:
        heads = tf.range(bias.num_heads)[:, None, None]
        scores += tf.cast(bias.of(queries, keys, heads), dtype)
    alone = tf.reduce_sum(count, axis=-1, keepdims=True) == 0
    itself = queries.position == keys.position
    count = tf.where(alone & itself & (keys.position >= 0), 1, count)
    shown = kernel.add_log(
        tf.zeros((), dtype), tf.cast(count, dtype) / probability
    )
    weights = tf.nn.softmax(scores + shown)
    return tf.where(queries.position >= 0, weights, 0.0)


def _probability(importance, window, scores, query, positions) -> tf.Tensor:
    lengths = tf.math.count_nonzero(
        positions >= 0, axis=-1, keepdims=True, dtype=tf.int32
    )
    return importance.probability(
        scores,
        1 / kernel.norms_of(query)[..., None],
        importance.shown_by_chance(window, lengths, scores.dtype),
    )


def _all_tokens(orders, buckets, window, mask) -> kernel.TokenInfo:
    """Every position's tokens: `(batch, num_heads, length, ...)`."""
    shape = tf.shape(orders)
    flat = tf.reshape(orders, (-1, shape[3]))
    ranks = tf.reshape(invert_permutation(flat), shape)
    places = window_coordinate(window, ranks, buckets)
    positions = tf.broadcast_to(
        tf.range(shape[3]), [shape[0], shape[1], shape[3]]
    )
    if mask is not None:
        positions = tf.where(mask[:, None, :], positions, -1)
    by_round = tf.unstack(places, orders.shape[2], axis=2)
    return kernel.TokenInfo(positions, places=tuple(by_round))
