"""LSH attention: all hash rounds as one softmax, its gradient by hand.

Combining rounds by their log-sum-exps is one softmax over the keys of all
rounds, each as often as it is shown (Kitaev et al. 2020, section 2, equations
3 to 6). So the forward pass folds over rounds with a running output and
log-sum-exp, and the backward pass folds again, against the total.
Between the passes live `_Residuals`: a round adds its order and buckets, 8
bytes a token and head, and no scores.

A round is windowed attention (`windowed.py`) in the layout of its sorted
order (`layouts.HashLayout`); `kernel.merge` joins it with the rounds before.
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
    add_each,
    add_to_first,
    with_global_queries,
)
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.kernel import (
    AttentionDropout,
    OutputGradient,
)
from keras_reformer.ops.attention.lanes import Lanes, shared_lanes
from keras_reformer.ops.attention.layouts import HashLayout, HashRounds
from keras_reformer.ops.attention.row_attention import RowAttention
from keras_reformer.ops.attention.segments import Segments
from keras_reformer.ops.attention.tokens import (
    TokenInfo,
    merge_heads_into_batch,
    token_positions,
)
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.attention.windowed import Vectors, WindowedAttention
from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.shapes import size, softmax_dtype


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
    dtype = softmax_dtype(query_key.dtype)
    lanes = shared_lanes(query_key.shape[-1], value.shape[-1], dtype)
    engine, layout_of = _round_attention(rounds, options, bias, dtype, lanes)
    vectors = _shared_vectors(query_key, value, dtype, lanes)

    def merge_round(index, *total):
        part = engine.forward(layout_of(index), vectors)
        return _merge(total, part, lanes)

    output = zeros_after(value, _shape_like(vectors.value), dtype)
    log_sum_exp = output[..., 0] + kernel.log_of_zero(dtype)
    total = output, log_sum_exp
    if lanes is not None:
        total = (lanes.output_rows(output, log_sum_exp[..., None]),)
    total = _fold(merge_round, total, rounds.num_hashes)
    output, log_sum_exp = total if lanes is None else _split(total[0], lanes)
    if options.window.num_global:
        tokens = _global_tokens(rounds, options, bias)
        output, log_sum_exp = tokens.merge_into(
            (output, log_sum_exp),
            query_key,
            kernel.to_unit_length(tf.cast(tokens.first(query_key), dtype)),
            tokens.first(value),
        )
    filled = kernel.fill_fully_masked_rows(
        output, value, log_sum_exp, rounds.positions >= 0
    )
    return filled, _Residuals(
        query_key, value, bias, rounds, options, output, log_sum_exp
    )


def _merge(total: tuple, part: tuple, lanes: Lanes | None) -> tuple:
    """One softmax over the keys of both."""
    if lanes is None:
        return kernel.merge(total, part)
    (rows,), (part_rows,) = total, part
    output, log_sum_exp = kernel.merge(
        (rows, rows[..., 0]), (part_rows, part_rows[..., 0])
    )
    return (lanes.output_rows(output, log_sum_exp[..., None]),)


def _split(rows: tf.Tensor, lanes: Lanes) -> tuple[tf.Tensor, tf.Tensor]:
    """Output and log-sum-exp."""
    return lanes.split(rows)[1], rows[..., 0]


def _backward(residuals: _Residuals, d_output: tf.Tensor) -> tuple:
    query_key, value, bias, rounds, options, output, log_sum_exp = residuals
    dtype = output.dtype
    lanes = shared_lanes(query_key.shape[-1], value.shape[-1], dtype)
    engine, layout_of = _round_attention(rounds, options, bias, dtype, lanes)
    vectors = _shared_vectors(query_key, value, dtype, lanes)
    d_output = d_whole = kernel.output_gradient(d_output, output, log_sum_exp)
    after = d_output.output
    d_query_key = zeros_after(after, _shape_like(query_key), dtype)
    d_value = kernel.fully_masked_rows_gradient(
        after, log_sum_exp, rounds.positions >= 0
    )
    d_bias = [zeros_after(after, *spec) for spec in gradient_specs(bias)]
    totals = d_query_key, d_value
    if lanes is not None:
        totals = (lanes.rows(*totals),)
        d_output = OutputGradient(
            lanes.gradient_rows(d_output, vectors.query), None, None
        )

    def add_round(index, *totals):
        parts = engine.backward(layout_of(index), vectors, d_output)
        return tuple(a + b for a, b in zip(totals, parts, strict=True))

    totals = _fold(add_round, (*totals, *d_bias), rounds.num_hashes)
    if lanes is not None:
        totals = *lanes.split(totals[0]), *totals[1:]
    d_query_key, d_value, *d_bias = totals
    if options.window.num_global:
        tokens = _global_tokens(rounds, options, bias)
        d_query_key, d_value, d_bias = _add_global_tokens(
            tokens, query_key, value, d_whole, (d_query_key, d_value, d_bias)
        )
    return d_query_key, d_value, as_gradient(bias, d_bias), None, None


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


def _round_attention(
    rounds: HashRounds,
    options: _Options,
    bias: PositionBias | None,
    dtype: tf.DType,
    lanes: Lanes | None,
) -> tuple[WindowedAttention, Callable[[tf.Tensor], HashLayout]]:
    """The engine of all rounds, and the layout of each by its number."""
    window, wrap, discount, importance, dropout = options
    length = size(rounds.orders, 2)

    def count(query: TokenInfo, key: TokenInfo) -> tf.Tensor:
        return tf.maximum(count_duplicates(window, query, key, length, wrap), 1)

    engine_class = WindowedAttention if lanes is None else RowAttention
    engine = engine_class(
        window,
        dtype,
        dropout,
        bias,
        count if discount else None,
        importance and importance.by_rows(window, rounds.positions, dtype),
        lanes,
    )
    coordinates = (
        window_coordinates(window, rounds.orders, rounds.buckets)
        if discount
        else None
    )

    def layout_of(index: tf.Tensor) -> HashLayout:
        return HashLayout(
            rounds,
            index,
            window,
            dtype,
            wrap=wrap,
            needs_positions=bias is not None or window.num_global > 0,
            coordinates=coordinates,
        )

    return engine, layout_of


def _shared_vectors(query_key, value, dtype, lanes) -> Vectors:
    if lanes is not None:
        rows = lanes.rows(query_key, value)
        return Vectors(rows, rows)
    norms = kernel.norms_of(tf.cast(query_key, dtype))
    return Vectors(query_key, value, norms=norms)


def _shape_like(x: tf.Tensor) -> list:
    return [size(x, axis) for axis in range(3)]


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
