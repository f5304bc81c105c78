"""LSH attention: all hash rounds as one softmax, its gradient by hand.

Combining rounds by their log-sum-exps is one softmax over the union of the
keys that all rounds show (Kitaev et al. 2020, section 2, equations 3 to 6).
So the forward pass loops over rounds with a running output and log-sum-exp,
and the backward pass loops again, recomputing scores against the total.
Between the passes live the output, the log-sum-exp, the orders and the
buckets: a round adds 4 to 8 bytes a token and head, and no scores.

One round, to be followed with a finger: `_fetch` takes a group of chunks'
vectors in the round's order, `WindowAttention` attends, `map_tiles` puts
the groups' results together and `take` puts them back by position;
`kernel.merge` joins them with the rounds before.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import (
    PositionBias,
    sums_of,
    values_of,
    with_values,
)
from keras_reformer.ops.attention.duplicates import (
    count_duplicates,
    window_coordinate,
)
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.local import (
    join_chunks,
    merge_heads_into_batch,
    rows_at,
    split_into_chunks,
    take_from_circle,
    token_positions,
    zero_absent,
)
from keras_reformer.ops.attention.sorting import (
    flatten_rows,
    invert_permutation,
    take,
)
from keras_reformer.ops.attention.window import (
    Window,
    WindowAttention,
    crop_chunks,
    windows,
)
from keras_reformer.ops.custom_vjp import first_order_gradient
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.shapes import (
    ceil_div,
    pad_axis,
    size,
    softmax_dtype,
)
from keras_reformer.ops.loops.tiling import map_tiles, plan_tiles


class _Hashes(NamedTuple):
    """What all rounds decided: `(g, num_hashes, t)`, and the tokens.

    Attributes:
        orders: at each rank, the position there.
        buckets: at each position, its bucket.
        positions: `(g, t)`, -1 where masked.
        wrap: bool. Rounds are one circle of chunks.
        discount: bool. A key shown N times counts `1 / N` each time.
        importance: what corrects for the odds of being shown, or None.
    """

    orders: tf.Tensor
    buckets: tf.Tensor
    positions: tf.Tensor
    wrap: bool
    discount: bool
    importance: Importance | None

    @property
    def num_hashes(self) -> int:
        return self.orders.shape[1]


def lsh_attention(
    query_key: tf.Tensor,
    value: tf.Tensor,
    orders: tf.Tensor,
    buckets: tf.Tensor,
    window: Window,
    *,
    mask: tf.Tensor | None = None,
    wrap: bool = False,
    discount_duplicates: bool = False,
    importance: Importance | None = None,
    dropping: kernel.AttentionDropout | None = None,
    bias: PositionBias | None = None,
) -> tf.Tensor:
    """Shared-query-key attention within the windows that sorting brings.

    Args:
        query_key: Tensor of shape `(batch, num_heads, length, key_dim)`:
            the queries, and at unit length the keys.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        orders: int32 tensor `(batch, num_heads, num_hashes, length)`: the
            position at each rank of each round, from `sort_rounds`.
        buckets: int32 tensor of the same shape: the bucket of each position.
        window: which keys a query may see.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
            Masked ones must have a bucket that sorts last.
        wrap: bool. The first chunk of a round sees the last chunk of the
            round before, as published; else it sees nothing before itself.
        discount_duplicates: bool. Subtract `log N` from the score of a pair
            that N rounds show (section 2, equation 16 of the appendix).
        importance: subtract this too, and `log N`: a pair counts once, over
            the probability that it is shown.
        dropping: dropout of the attention weights.
        bias: what to add to the scores.

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
        discount_duplicates or importance is not None,
        importance,
    )
    output = _attention(
        merge_heads_into_batch(query_key),
        merge_heads_into_batch(value),
        bias,
        hashes,
        window,
        dropping,
    )
    output = tf.where(hashes.positions[..., None] >= 0, output, 0.0)
    return tf.reshape(output, [batch, num_heads, length, value.shape[-1]])


def _attention(query_key, value, bias, hashes, window, dropping) -> tf.Tensor:
    dtype = softmax_dtype(query_key.dtype)
    valid = hashes.positions >= 0

    def make_loop(bias_values):
        here = with_values(bias, bias_values)
        return _RoundLoop(hashes, window, dropping, dtype, here)

    @first_order_gradient
    def attention(query_key, value, *bias_values):
        loop = make_loop(bias_values)
        output, log_sum_exp = loop.attend_all(query_key, value)

        def gradient(d_output):
            # Anew, so that nothing a loop knows outlives its pass.
            loop = make_loop(bias_values)
            upstream = kernel.output_gradient(d_output, output, log_sum_exp)
            alone = kernel.fully_masked_rows_gradient(
                upstream.output, log_sum_exp, valid
            )
            totals = loop.gradient_all(query_key, value, upstream, alone)
            inputs = (query_key, value, *bias_values)
            return kernel.cast_like(totals, inputs)

        return kernel.fill_fully_masked_rows(
            output, value, log_sum_exp, valid
        ), gradient

    return attention(query_key, value, *values_of(bias))


class _RoundLoop:
    """The two passes of one round, and the loop over rounds."""

    def __init__(self, hashes, window, dropping, dtype, bias):
        self.hashes = hashes
        self.window = window
        self.dtype = dtype
        self.rows, _, self.length = (size(hashes.orders, i) for i in range(3))
        self.chunks = ceil_div(self.length, window.chunk_length)
        self.circle = self.chunks * hashes.num_hashes
        self.bias = bias
        self.places = self._places() if hashes.discount else None
        importance = hashes.importance
        self.attention = WindowAttention(
            window,
            self.circle * window.chunk_length,
            dropping,
            self._times_shown if hashes.discount else None,
            bias,
            importance and importance.by_rows(window, hashes.positions, dtype),
        )

    def attend_all(self, query_key, value):
        """Output and log-sum-exp of all rounds, by position."""
        norms = kernel.norms_of(tf.cast(query_key, self.dtype))

        def merge_round(index, output, log_sum_exp):
            part = self.attend(index, query_key, value, norms)
            return kernel.merge((output, log_sum_exp), part)

        nothing = self._zeros_like(value, value)
        log_sum_exp = nothing[..., 0] + kernel.log_of_zero(self.dtype)
        return self._over_rounds(merge_round, (nothing, log_sum_exp))

    def gradient_all(self, query_key, value, upstream, d_value):
        """Gradients by query-key, value and bias, added to one by value."""
        norms = kernel.norms_of(tf.cast(query_key, self.dtype))

        def add_round(index, *totals):
            parts = self.gradient(index, query_key, value, norms, upstream)
            return tuple(a + b for a, b in zip(totals, parts, strict=True))

        after = upstream.output
        nothing = self._zeros_like(query_key, after)
        zeros = (zeros_after(after, *result) for result in sums_of(self.bias))
        return self._over_rounds(add_round, (nothing, d_value, *zeros))

    def _zeros_like(self, x, after):
        shape = [self.rows, self.length, x.shape[-1]]
        return zeros_after(after, shape, self.dtype)

    def _over_rounds(self, function, start: tuple) -> tuple:
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

    def attend(self, index, query_key, value, norms):
        """Output and log-sum-exp of one round, by position."""
        window = self.window

        def forward(order, tokens, place):
            wide = windows(order, window)
            own = crop_chunks(order, window.before, size(wide, 1))
            # Apart from the keys, among which they lie: with another reader
            # of these the gather would be a slow loop of its own.
            (queries,) = self._fetch((query_key,), own, place)
            keys, values, key_norms = self._fetch(
                (query_key, value, norms), wide, place
            )
            return self.attention.attend(
                queries,
                keys / key_norms[..., None],
                values,
                tokens,
                rows_at(place, order),
                index * self.chunks + place.chunk,
                self._inverse_norms(norms, own, place),
            )

        halo = (window.before, window.after)
        return self._over_groups(forward, index, halo, [value.shape[-1:], []])

    def gradient(self, index, query_key, value, norms, upstream):
        """Gradients of one round: by query-key, value and bias."""
        window = self.window

        def backward(order, tokens, place):
            wide = windows(order, window)
            queries, *here = self._fetch((query_key, *upstream), wide, place)
            own = crop_chunks(order, window.after, size(wide, 1))
            keys, values, key_norms = self._fetch(
                (query_key, value, norms), own, place
            )
            # Divided, not multiplied by an inverse: a product XLA moves into
            # each reader, which leaves the gather a slow loop of its own.
            keys /= key_norms[..., None]
            d_queries, d_keys, *d_others = self.attention.gradient(
                queries,
                keys,
                values,
                kernel.OutputGradient(*here).where(wide >= 0),
                tokens,
                rows_at(place, order),
                index * self.chunks + place.chunk,
                place.count,
                self._inverse_norms(norms, wide, place),
            )
            units = crop_chunks(
                (keys, key_norms), window.before, size(d_keys, 1)
            )
            d_queries += kernel.unit_length_gradient(*units, d_keys)
            return d_queries, *d_others

        halo = (window.reach, window.reach)
        shapes = [query_key.shape[-1:], value.shape[-1:]]
        return self._over_groups(
            backward, index, halo, shapes, sums_of(self.bias)
        )

    def _over_groups(self, step, index, halo, shapes, sums=()):
        plan = plan_tiles(
            self.rows, self.chunks, self.window.chunk_length, max(halo)
        )
        order = self._order(index, halo)
        found = map_tiles(
            lambda around, place: step(*around, place),
            (order, self._tokens(index, order)),
            plan,
            halo,
            [ArraySpec(shape, self.dtype) for shape in shapes],
            order,
            sums,
        )
        results, totals = found[: len(shapes)], found[len(shapes) :]
        ranks = invert_permutation(self.hashes.orders[:, index])
        return *(take(_join(x), ranks) for x in results), *totals

    def _order(self, index, halo) -> tf.Tensor:
        """A round's order in chunks, with those around; -1 is no token."""
        orders, length = self.hashes.orders, self.window.chunk_length
        if not self.hashes.wrap:
            chunks = split_into_chunks(orders[:, index], length, -1)
            return pad_axis(chunks, 1, *halo, -1)
        chunks = split_into_chunks(flatten_rows(orders), length, -1)
        circle = tf.reshape(chunks, [self.rows, self.circle, length])
        first = index * self.chunks
        return take_from_circle(circle, first, self.chunks, halo)

    def _tokens(self, index, order) -> kernel.TokenInfo:
        """What masks need of the tokens in an order."""
        hashes = self.hashes
        position, bucket, places = None, None, None
        if self.window.same_bucket:
            bucket = _take(hashes.buckets[:, index], order, -1)
        if self.bias is not None or not self.window.same_bucket:
            position = _take(hashes.positions, order, -1)
        if hashes.discount:
            found = take(self.places, tf.maximum(order, 0))
            places = tuple(tf.unstack(found, hashes.num_hashes, axis=-1))
        return kernel.TokenInfo(position, bucket, places)

    def _places(self) -> tf.Tensor:
        """Every position's places in all rounds, side by side."""
        orders, buckets = self.hashes[:2]
        flat = tf.reshape(orders, [-1, self.length])
        ranks = tf.reshape(invert_permutation(flat), tf.shape(orders))
        places = window_coordinate(self.window, ranks, buckets)
        return tf.transpose(places, (0, 2, 1))

    def _fetch(self, tensors, order, place):
        """Takes `(g, t, ...)` of a group's rows at `(r, n, c)` positions.

        Straight from where they lie: a copy of the whole sequence in the
        round's order is never made.
        """
        first = (place.row + tf.range(size(order, 0))) * self.length
        index = tf.maximum(order, 0) + first[:, None, None]
        found = []
        for x in tensors:
            taken = tf.cast(tf.gather(flatten_rows(x), index), self.dtype)
            found.append(zero_absent(taken, order))
        return found

    def _inverse_norms(self, norms, order, place):
        """Of queries, zero where there is none; None where not needed."""
        if self.hashes.importance is None:
            return None
        return self._fetch((1 / norms,), order, place)[0]

    def _times_shown(self, query, key):
        """The number of times that rounds show a key, one at least."""
        count = count_duplicates(
            self.window, query, key, self.length, self.hashes.wrap
        )
        return tf.maximum(count, 1)


def _take(x: tf.Tensor, order: tf.Tensor, padding: int) -> tf.Tensor:
    """Takes `(g, t)` at `(g, n, c)` positions; `padding` at -1."""
    return tf.where(order >= 0, take(x, tf.maximum(order, 0)), padding)


def _join(x: tf.Tensor) -> tf.Tensor:
    """`(g, n, c, ...)` to `(g, n * c, ...)`."""
    return join_chunks(x, size(x, 1) * size(x, 2))
