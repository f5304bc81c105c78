"""LSH attention: all hash rounds as one softmax, its gradient by hand.

Combining rounds by their log-sum-exps is one softmax over the keys of all
rounds, each as often as it is shown (Kitaev et al. 2020, section 2, equations
3 to 6). So the forward pass folds over rounds with a running output and
log-sum-exp, and the backward pass folds again, against the total.
Between the passes live `_Residuals`: a round adds its order and buckets, 8
bytes a token and head, and no scores.

A round is windowed attention (`windowed.py`) in the layout of its sorted
order (`layouts.HashLayout`); `round_sums.py` joins it with the rounds before.
On a TPU a pass takes a row or a few at a time, whose sums stay on the chip.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import (
    PositionBias,
    as_gradient,
    gradient_specs,
)
from keras_reformer.ops.attention.duplicates import (
    count_duplicates,
    window_coordinates,
)
from keras_reformer.ops.attention.exact import exact_shared_attention
from keras_reformer.ops.attention.global_tokens import (
    GlobalTokens,
    add_to_first,
    with_global_queries,
)
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.kernel import AttentionDropout
from keras_reformer.ops.attention.layouts import HashLayout, HashRounds
from keras_reformer.ops.attention.round_sums import RoundSums, round_sums
from keras_reformer.ops.attention.segments import Segments
from keras_reformer.ops.attention.tokens import (
    TokenInfo,
    merge_heads_into_batch,
    token_positions,
)
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.attention.windowed import WindowedAttention
from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, add_each
from keras_reformer.ops.loops.shapes import size
from keras_reformer.ops.loops.tiling import map_rows


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
    dropout: AttentionDropout | None = None,
    bias: PositionBias | None = None,
    segments: Segments | None = None,
) -> tf.Tensor:
    """Shared-query-key attention within windows of the sorted orders.

    Args:
        query_key: Tensor of shape `(batch, num_heads, length, key_dim)`:
            the queries, and at unit length the keys.
        value: Tensor of shape `(batch, num_heads, length, value_dim)`.
        orders: int32 tensor `(batch, num_heads, num_hashes, length)`: the
            position at each rank of each round, from `sort_rounds`.
        buckets: int32 tensor of the same shape: the bucket of each position.
        window: which keys a query sees.
        mask: Boolean tensor `(batch, length)`, True at valid positions.
            Masked ones must have a bucket that sorts last.
        wrap: bool. The first chunk of a round sees the last chunk of the
            round before, as published; else it sees no chunk before itself.
        discount_duplicates: bool. Subtract `log N` from the score of a pair
            that N rounds show (section 2, equation 16 of the appendix).
        importance: subtract the logarithm of the probability that a pair is
            shown, and `log N`: a pair counts once.
        dropout: of the attention weights.
        bias: added to the scores.
        segments: packed documents, or None. Orders leave each in its place,
            and in windows of buckets each has buckets of its own.

    Returns:
        Tensor of shape `(batch, num_heads, length, value_dim)` in float32 at
        least: zero at masked positions, the token's own value where it saw
        no key in any round.
    """
    batch, num_heads, length = size(value, 0), value.shape[1], size(value, 2)
    rows, num_hashes = batch * num_heads, orders.shape[2]
    rounds = HashRounds(
        tf.reshape(orders, [rows, num_hashes, length]),
        tf.reshape(buckets, [rows, num_hashes, length]),
        token_positions(mask, rows, num_heads, length, segments),
    )
    if segments is not None and not window.same_bucket:
        segment = tf.repeat(segments.number, num_heads, axis=0)
        rounds = rounds._replace(segment=segment)
    discount = discount_duplicates or importance is not None
    options = _Options(window, wrap, discount, importance, dropout)
    output = custom_vjp(_forward, _backward)(
        merge_heads_into_batch(query_key),
        merge_heads_into_batch(value),
        bias,
        rounds,
        options,
    )
    output = tf.where(rounds.positions[..., None] >= 0, output, 0.0)
    output = tf.reshape(output, [batch, num_heads, length, value.shape[-1]])
    if not window.num_global or window.causal:
        return output
    of_global = exact_shared_attention(
        query_key,
        value,
        causal=False,
        mask=mask,
        bias=bias,
        dropout=dropout,
        num_queries=window.num_global,
    )
    return with_global_queries(output, of_global, window)


class _Options(NamedTuple):
    """How rounds attend: arguments of `lsh_attention`.

    Attributes:
        window: which keys a query sees.
        wrap: bool. Rounds are one ring of chunks.
        discount: bool. A key shown N times counts `1 / N` each time.
        importance: divides by the probability that a pair is shown, or None.
        dropout: of the attention weights, or None.
    """

    window: Window
    wrap: bool
    discount: bool
    importance: Importance | None
    dropout: AttentionDropout | None


class _Residuals(NamedTuple):
    """What lives between the passes.

    Attributes:
        query_key: `(g, t, key_dim)`, an argument.
        value: `(g, t, value_dim)`, an argument.
        bias: an argument.
        rounds: orders, buckets and positions, an argument.
        options: an argument.
        output: `(g, t, value_dim)`, of all rounds.
        log_sum_exp: `(g, t)`, of all rounds.
    """

    query_key: tf.Tensor
    value: tf.Tensor
    bias: PositionBias | None
    rounds: HashRounds
    options: _Options
    output: tf.Tensor
    log_sum_exp: tf.Tensor


def _forward(query_key, value, bias, rounds, options) -> tuple:
    sums = round_sums(query_key, value, rounds.num_hashes)
    engine = _engine(rounds, options, bias, sums)

    def attend(first_row, vectors, rounds):
        layout_of = _layouts(rounds, first_row, options, bias, sums)

        def merge_round(index, *total):
            return sums.merge(total, engine.forward(layout_of(index), vectors))

        total = _fold(merge_round, sums.no_keys(vectors), rounds.num_hashes)
        return sums.softmax(total)

    output, log_sum_exp = map_rows(
        attend,
        (sums.vectors(query_key, value), rounds),
        results=[_row_of(value, sums), _row_of(rounds.positions, sums)],
    )
    if options.window.num_global:
        tokens = _global_tokens(rounds, options, bias)
        output, log_sum_exp = tokens.merge_into(
            (output, log_sum_exp),
            query_key,
            kernel.to_unit_length(tf.cast(tokens.first(query_key), sums.dtype)),
            tokens.first(value),
        )
    filled = kernel.fill_fully_masked_rows(
        output, value, log_sum_exp, rounds.positions >= 0
    )
    return filled, _Residuals(
        query_key, value, bias, rounds, options, output, log_sum_exp
    )


def _backward(residuals: _Residuals, d_output: tf.Tensor) -> tuple:
    query_key, value, bias, rounds, options, output, log_sum_exp = residuals
    sums = round_sums(query_key, value, rounds.num_hashes)
    engine = _engine(rounds, options, bias, sums)
    d_output = kernel.output_gradient(d_output, output, log_sum_exp)

    def gradients(first_row, vectors, rounds, d_output, log_sum_exp):
        layout_of = _layouts(rounds, first_row, options, bias, sums)
        after = d_output.output
        d_bias = [zeros_after(after, *spec) for spec in gradient_specs(bias)]
        d_masked = kernel.fully_masked_rows_gradient(
            after, log_sum_exp, rounds.positions >= 0
        )
        d_output = sums.output_gradient(d_output, vectors)

        def add_round(index, *totals):
            parts = engine.backward(layout_of(index), vectors, d_output)
            return tuple(add_each(totals, parts))

        totals = sums.no_gradients(vectors, d_masked)
        count = len(totals)
        totals = _fold(add_round, (*totals, *d_bias), rounds.num_hashes)
        return *sums.gradients(totals[:count], d_masked), *totals[count:]

    d_query_key, d_value, *d_bias = map_rows(
        gradients,
        (sums.vectors(query_key, value), rounds, d_output, log_sum_exp),
        results=[_row_of(x, sums) for x in (query_key, value)],
        sums=gradient_specs(bias),
    )
    if options.window.num_global:
        tokens = _global_tokens(rounds, options, bias)
        d_query_key, d_value, d_bias = _add_global_tokens(
            tokens, query_key, value, d_output, (d_query_key, d_value, d_bias)
        )
    return d_query_key, d_value, as_gradient(bias, d_bias), None, None


def _row_of(x: tf.Tensor, sums: RoundSums) -> ArraySpec:
    """One of the rows of what is summed over rounds, by what it is like."""
    shape = [size(x, axis) for axis in range(1, x.shape.rank)]
    return ArraySpec(shape, sums.dtype)


def _global_tokens(
    rounds: HashRounds, options: _Options, bias: PositionBias | None
) -> GlobalTokens:
    return GlobalTokens(options.window, rounds.positions, options.dropout, bias)


def _add_global_tokens(
    tokens: GlobalTokens, query_key, value, d_output, totals: tuple
) -> tuple:
    """Gradients of rounds with those of global keys added to them."""
    shared = tf.cast(tokens.first(query_key), d_output.output.dtype)
    unit, norms = kernel.to_unit_length(shared), kernel.norms_of(shared)
    d_query, d_key, d_value, d_bias = tokens.gradients(
        query_key, unit, tokens.first(value), d_output
    )
    d_shared = kernel.unit_length_gradient(unit, norms, d_key)
    total_query_key, total_value, total_bias = totals
    return (
        add_to_first(total_query_key + d_query, d_shared),
        add_to_first(total_value, d_value),
        add_each(total_bias, d_bias),
    )


def _engine(
    rounds: HashRounds,
    options: _Options,
    bias: PositionBias | None,
    sums: RoundSums,
) -> WindowedAttention:
    """The engine of all rounds."""
    window, wrap, discount, importance, dropout = options
    length = size(rounds.orders, 2)

    def count(query: TokenInfo, key: TokenInfo) -> tf.Tensor:
        return tf.maximum(count_duplicates(window, query, key, length, wrap), 1)

    return sums.engine(
        window,
        sums.dtype,
        dropout,
        bias,
        count if discount else None,
        importance and importance.by_rows(window, rounds.positions, sums.dtype),
        sums.lanes,
    )


def _layouts(
    rounds: HashRounds,
    first_row: tf.Tensor | None,
    options: _Options,
    bias: PositionBias | None,
    sums: RoundSums,
) -> Callable[[tf.Tensor], HashLayout]:
    """The layout of each round by its number."""
    window = options.window
    coordinates = (
        window_coordinates(window, rounds.orders, rounds.buckets)
        if options.discount
        else None
    )

    def layout_of(index: tf.Tensor) -> HashLayout:
        return HashLayout(
            rounds,
            index,
            window,
            sums.dtype,
            wrap=options.wrap,
            needs_positions=bias is not None or window.num_global > 0,
            coordinates=coordinates,
            first_row=first_row,
        )

    return layout_of


def _fold(
    function: Callable[..., tuple], state: tuple, num_hashes: int
) -> tuple:
    """Folds `function(index, *state) -> state` over the rounds."""
    if num_hashes == 1:
        return function(tf.constant(0), *state)
    _, *folded = tf.while_loop(
        lambda index, *state: index < num_hashes,
        lambda index, *state: (index + 1, *function(index, *state)),
        (tf.constant(0), *state),
        parallel_iterations=1,
        maximum_iterations=num_hashes,
    )
    return tuple(folded)
