"""LSH attention: all hash rounds as one softmax, its gradient by hand.

Combining rounds by their log-sum-exps is one softmax over the union of the
keys that all rounds show (Kitaev et al. 2020, section 2, equations 3 to 6).
So the forward pass loops over rounds with a running output and log-sum-exp,
and the backward pass loops again, recomputing scores against the total.
Between the passes live the output, the log-sum-exp, the orders and the
buckets: a round adds 8 bytes a token and head, and no scores.

One round, to be followed with a finger: `_round_of` puts vectors into the
round's order, `over_groups` attends chunk by chunk, `_unsort` puts results
back, `_merge` joins them with the rounds before.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops import blocks
from keras_reformer.ops.attention import (
    merge_heads_into_batch,
    ranks,
    split_into_chunks,
    token_positions,
)
from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.groups import over_groups, plan_groups
from keras_reformer.ops.meetings import times_shown
from keras_reformer.ops.shapes import (
    Length,
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)
from keras_reformer.ops.sorting import invert_permutation, take


class _Hashes(NamedTuple):
    """What all rounds decided: `(g, num_hashes, t)`, and the tokens.

    Attributes:
        orders: at each rank, the position there.
        buckets: at each position, its bucket.
        positions: `(g, t)`, -1 where masked.
        wrap: bool. Rounds are one circle of chunks.
        discount: bool. A key shown N times counts `1 / N` each time.
    """

    orders: tf.Tensor
    buckets: tf.Tensor
    positions: tf.Tensor
    wrap: bool
    discount: bool

    @property
    def num_hashes(self) -> int:
        return self.orders.shape[1]


class _Round(NamedTuple):
    """One round's order in chunks, with the chunks around: `(g, n, c)`.

    Attributes:
        chunks: Number of its own chunks.
        order: Position at each rank, -1 where there is none.
        tokens: What masks need of the tokens there.
        ranks: `(g, t)`: the rank of each position.
    """

    chunks: Length
    order: tf.Tensor
    tokens: blocks.Tokens
    ranks: tf.Tensor


def lsh_attention(
    query_key: tf.Tensor,
    value: tf.Tensor,
    orders: tf.Tensor,
    buckets: tf.Tensor,
    window: blocks.Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    discount_duplicates: bool = False,
    dropping: blocks.Dropping | None = None,
) -> tf.Tensor:
    """Shared-query-key attention within the windows that sorting brings.

    Args:
        query_key: Tensor of shape `(batch, num_heads, length, key_dim)`:
            the queries, and at unit length the keys.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        orders: int32 tensor `(batch, num_heads, num_hashes, length)`: the
            position at each rank of each round, from `sort_by_bucket`.
        buckets: int32 tensor of the same shape: the bucket of each position.
        window: which keys a query may see.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
            Masked ones must have a bucket that sorts last.
        wrap: bool. The first chunk of a round sees the last chunk of the
            round before, as published; else it sees nothing before itself.
        discount_duplicates: bool. Subtract `log N` from the score of a pair
            that N rounds show (section 2, equation 16 of the appendix).
        dropping: dropout of the attention weights.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least: zero at masked positions, the own value where a token saw
        nothing in any round.
    """
    batch, num_heads, length = size(value, 0), value.shape[1], size(value, 2)
    rows = batch * num_heads
    num_hashes = orders.shape[2]
    hashes = _Hashes(
        tf.reshape(orders, [rows, num_hashes, length]),
        tf.reshape(buckets, [rows, num_hashes, length]),
        token_positions(mask, rows, num_heads, length),
        wrap,
        discount_duplicates,
    )
    output = _attention(
        merge_heads_into_batch(query_key),
        merge_heads_into_batch(value),
        hashes,
        window,
        dropping,
    )
    output = tf.where(hashes.positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _attention(query_key, value, hashes, window, dropping) -> tf.Tensor:
    dtype = softmax_dtype(query_key.dtype)
    valid = hashes.positions >= 0
    loop = _RoundLoop(hashes, window, dropping, dtype)

    @first_order_gradient
    def attention(query_key, value):
        def merge_round(index, output, log_sum_exp):
            part = loop.attend(index, query_key, value)
            return _merge((output, log_sum_exp), part)

        nothing = tf.zeros_like(value, dtype)
        output, log_sum_exp = loop.over_rounds(
            merge_round, (nothing, nothing[..., 0] - float("inf"))
        )

        def gradient(d_output):
            upstream = blocks.upstream_of(d_output, output, log_sum_exp)

            def add_round(index, *totals):
                parts = loop.gradient(index, query_key, value, upstream)
                return tuple(a + b for a, b in zip(totals, parts, strict=True))

            alone = blocks.lonely_value_gradient(
                upstream.output, log_sum_exp, valid
            )
            totals = loop.over_rounds(
                add_round, (tf.zeros_like(query_key, dtype), alone)
            )
            return blocks.cast_like(totals, (query_key, value))

        return blocks.give_lonely_their_value(
            output, value, log_sum_exp, valid
        ), gradient

    return attention(query_key, value)


def _merge(total: tuple, part: tuple) -> tuple[tf.Tensor, tf.Tensor]:
    """One softmax from two of disjoint keys."""
    (output, log_sum_exp), (output_part, log_sum_exp_part) = total, part
    largest = tf.maximum(log_sum_exp, log_sum_exp_part)
    largest = tf.where(largest != -float("inf"), largest, 0.0)
    weight = tf.exp(log_sum_exp - largest)
    weight_part = tf.exp(log_sum_exp_part - largest)
    both = weight + weight_part
    merged = output * tf.math.divide_no_nan(weight, both)[..., None]
    merged += output_part * tf.math.divide_no_nan(weight_part, both)[..., None]
    return merged, largest + tf.math.log(both)


class _RoundLoop:
    """The two passes of one round, and the loop over rounds."""

    def __init__(self, hashes, window, dropping, dtype):
        self.hashes = hashes
        self.window = window
        self.dropping = dropping
        self.dtype = dtype
        self.halo = (window.before, window.after)
        self.bias = self._discount if hashes.discount else None

    def over_rounds(self, function, start: tuple) -> tuple:
        """Folds `function(index, *state)` over the rounds."""
        num_hashes = self.hashes.num_hashes
        if num_hashes == 1:
            return function(tf.constant(0), *start)
        _, *state = tf.while_loop(
            lambda index, *state: index < num_hashes,
            lambda index, *state: (index + 1, *function(index, *state)),
            (tf.constant(0), *start),
            parallel_iterations=1,
            maximum_iterations=num_hashes,
        )
        return tuple(state)

    def attend(self, index, query_key, value):
        """Output and log-sum-exp of one round, by position."""
        current = _round_of(self.hashes, index, self.window)

        def forward(own, around, place):
            step, _ = self._step(around, place, index)
            return blocks.attend(
                step, self.window, self.dropping, self.bias
            ), ()

        results, _ = self._over_groups(
            forward, (), current, query_key, value, ((self.dtype,) * 2, ())
        )
        return tuple(_unsort(x, current.ranks) for x in results)

    def gradient(self, index, query_key, value, upstream):
        """Gradients by query-key and value of one round, by position."""
        current = _round_of(self.hashes, index, self.window)

        def backward(own, around, place):
            step, query_key = self._step(around, place, index)
            d_queries, d_keys, d_values = blocks.attend_gradient(
                step, own, self.window, self.dropping, self.bias
            )
            d_query_key = blocks.unit_length_gradient(query_key, d_keys)
            d_query_key += pad_axis(d_queries, 1, *self.halo)
            return (), (d_query_key, d_values)

        _, results = self._over_groups(
            backward,
            self._sort_upstream(upstream, current),
            current,
            query_key,
            value,
            ((), (self.dtype,) * 2),
        )
        return tuple(self._unsort_around(x, current) for x in results)

    def _discount(self, query, key):
        """`-log N`, N the number of times that rounds show a key."""
        length = size(self.hashes.orders, 2)
        count = times_shown(self.window, query, key, length, self.hashes.wrap)
        return -tf.math.log(tf.cast(tf.maximum(count, 1), self.dtype))

    def _over_groups(self, step, own, current, query_key, value, signature):
        around = (
            _sort(query_key, current.order),
            _sort(value, current.order),
            current.tokens,
        )
        plan = plan_groups(
            size(query_key, 0),
            current.chunks,
            self.window.chunk_length,
            max(self.halo),
        )
        return over_groups(step, own, around, plan, self.halo, signature)

    def _step(self, around, place, index):
        query_key, value, tokens = around
        query_key = tf.cast(query_key, self.dtype)
        chunks = size(query_key, 1) - sum(self.halo)
        own = blocks.shift((query_key, tokens), 0, self.window, chunks)
        row, rank = ranks(place, own[0])
        step = blocks.Step(
            own[0],
            blocks.unit_length(query_key),
            tf.cast(value, self.dtype),
            own[1],
            tokens,
            row * self.hashes.num_hashes + index,
            rank,
        )
        return step, query_key

    def _sort_upstream(self, upstream, current) -> blocks.Upstream:
        order = blocks.shift(current.order, 0, self.window, current.chunks)
        output, log_sum_exp, row_sum = (_sort(x, order) for x in upstream)
        infinity = tf.constant(float("inf"), self.dtype)
        # Ranks without a token must not attend: exp(score - inf) is zero.
        log_sum_exp = tf.where(order >= 0, log_sum_exp, infinity)
        return blocks.Upstream(output, log_sum_exp, row_sum)

    def _unsort_around(self, d_sorted, current):
        """Puts gradients of a round's chunks, and around, by position."""
        before, after = self.halo
        own = blocks.shift(d_sorted, 0, self.window, current.chunks)
        by_position = _unsort(own, current.ranks)
        if not self.hashes.wrap:
            return by_position
        for part, order in (
            (d_sorted[:, :before], current.order[:, :before]),
            (
                d_sorted[:, before + current.chunks :],
                current.order[:, before + current.chunks :],
            ),
        ):
            by_position = _add_at(by_position, part, order)
        return by_position


def _round_of(hashes: _Hashes, index, window: blocks.Window) -> _Round:
    """Puts one round's order into chunks, with the chunks around it."""
    rows, length = size(hashes.orders, 0), size(hashes.orders, 2)
    chunks = ceil_div(length, window.chunk_length)
    spare = chunks * window.chunk_length - length
    orders = pad_axis(hashes.orders, 2, 0, spare, -1)
    if hashes.wrap:
        circle = chunks * hashes.num_hashes
        orders = tf.reshape(orders, [rows, circle, window.chunk_length])
        around = tf.range(chunks + window.before + window.after)
        around += index * chunks - window.before
        order = tf.gather(orders, around % circle, axis=1)
    else:
        order = split_into_chunks(orders[:, index], window.chunk_length)
        order = pad_axis(order, 1, window.before, window.after, -1)
    return _Round(
        chunks,
        order,
        _tokens_at(hashes, index, order, window),
        invert_permutation(hashes.orders[:, index]),
    )


def _tokens_at(hashes, index, order, window) -> blocks.Tokens:
    position = tf.where(order >= 0, _sort(hashes.positions, order), -1)
    bucket = None
    if window.same_bucket:
        bucket = _sort(hashes.buckets[:, index], order)
    if not hashes.discount:
        return blocks.Tokens(position, bucket)
    rounds = range(hashes.num_hashes)
    ranks = [invert_permutation(hashes.orders[:, r]) for r in rounds]
    all_ranks = _sort(tf.stack(ranks, axis=-1), order)
    all_buckets = _sort(tf.transpose(hashes.buckets, (0, 2, 1)), order)
    return blocks.Tokens(position, bucket, all_ranks, all_buckets)


def _sort(x: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Takes `(g, t, ...)` at `(g, n, c)` positions; anything at -1."""
    rows, chunks, slots = (size(order, axis) for axis in range(3))
    flat = tf.reshape(tf.maximum(order, 0), [rows, chunks * slots])
    rest = x.shape[2:].as_list()
    return tf.reshape(take(x, flat), [rows, chunks, slots, *rest])


def _unsort(x: tf.Tensor, ranks: tf.Tensor) -> tf.Tensor:
    """Takes `(g, n, c, ...)` back to `(g, t, ...)`."""
    rest = x.shape[3:].as_list()
    flat = tf.reshape(x, [size(x, 0), size(x, 1) * size(x, 2), *rest])
    return take(flat, ranks)


def _add_at(total: tf.Tensor, part: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Adds a few chunks' rows at their positions; -1 carries zeros."""
    rows = tf.broadcast_to(
        tf.range(size(order, 0))[:, None, None], tf.shape(order)
    )
    index = tf.stack([rows, tf.maximum(order, 0)], axis=-1)
    return tf.tensor_scatter_nd_add(total, index, part)
