"""Softmax attention of blocks of queries to blocks of keys.

Whatever attends in this package does it here. The forward pass takes
queries with the keys they may see and returns the normalised output and the
log-sum-exp of the scores, from which several such outputs are merged into
one softmax. The backward pass takes the log-sum-exp of that whole softmax and
recomputes the scores (Dao et al. 2022, "FlashAttention", appendix B.4):

    p = exp(s - lse) / n      ds = p * (m * (do . v) - rowsum(do * o))

with `m` the dropout mask over its keep probability, and `n` what weights are
divided by (`PairMask.count` and `probability`). It takes keys with the
queries that may see them, so its scores are transposed: gradients with
respect to keys and values are then complete and plain products, and only that
with respect to queries needs a transposed factor, which a CPU multiplies at
half the speed.

No score outlives its call. Scores, softmax and sums are float32 at least,
whatever the inputs are. A masked pair's score is `log_of_zero`, which is
finite, so that a tool that stops at infinities, such as
`tf.debugging.enable_check_numerics`, stops at those of a model alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.dropout import keep_scale


class AttentionDropout(NamedTuple):
    """Dropout of attention weights.

    A mask element depends on the row, the query's rank and the key's slot in
    the window alone, not on how a loop groups them.

    Attributes:
        rate: float in `[0, 1)`.
        seed: integer tensor of shape `(2,)`.
        shared: bool. One mask of a chunk serves all chunks, rounds, heads
            and examples, as published.
    """

    rate: float
    seed: tf.Tensor
    shared: bool = False

    def keep_scale(
        self,
        row: tf.Tensor,
        rank: tf.Tensor,
        slot: tf.Tensor,
        chunk_length: int,
        dtype: tf.DType,
    ) -> tf.Tensor:
        """Factors of the weights of these rows, query ranks and key slots.

        Args:
            row: int32. Numbers of the rows.
            rank: int32. Ranks of the queries in their row.
            slot: int32. Indices of the keys in the queries' windows.
            chunk_length: int. Tokens in a chunk.
            dtype: of the result.

        Returns:
            Tensor of the common shape of rows, ranks and slots.
        """
        if self.shared:
            row, rank = tf.zeros((), tf.int32), rank % chunk_length
        return keep_scale(self.rate, self.seed, row, rank, slot, dtype=dtype)


class PairMask(NamedTuple):
    """What is known of pairs besides their vectors; broadcasts to scores.

    Attributes:
        visible: bool. Whether the query sees the key.
        bias: added to the score, or None.
        keep_scale: factor of the weight, from dropout, or None.
        scale: factor of the score, or None.
        count: divides the weight, or None.
        probability: function of the scaled score, before the bias, that
            divides the weight too, a constant for gradients; or None.
    """

    visible: tf.Tensor
    bias: tf.Tensor | None = None
    keep_scale: tf.Tensor | None = None
    scale: tf.Tensor | None = None
    count: tf.Tensor | None = None
    probability: Callable[[tf.Tensor], tf.Tensor] | None = None

    def mask(self, scores: tf.Tensor) -> tf.Tensor:
        """Scaled and biased scores, masked where the key is not visible."""
        if self.scale is not None:
            scores *= self.scale
        if self.bias is not None:
            scores += self.bias
        return tf.where(self.visible, scores, log_of_zero(scores.dtype))

    def divide(self, weights: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Weights divided by the count and the probability.

        Subtracting their logarithms from the scores would do the same and
        take a CPU more time.

        Args:
            weights: exponentials of masked scores.
            scores: before scale and bias.
        """
        if self.count is not None:
            weights /= tf.cast(self.count, weights.dtype)
        if self.probability is not None:
            if self.scale is not None:
                scores *= self.scale
            weights /= self.probability(scores)
        return weights

    def drop(self, weights: tf.Tensor) -> tf.Tensor:
        """Weights after dropout."""
        if self.keep_scale is None:
            return weights
        return weights * self.keep_scale


def attend(
    queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, pairs: PairMask
) -> tuple[tf.Tensor, tf.Tensor]:
    """Softmax attention of queries to keys.

    Args:
        queries: Tensor of shape `(..., num_queries, key_dim)`.
        keys: Tensor of shape `(..., num_keys, key_dim)`.
        values: Tensor of shape `(..., num_keys, value_dim)`.
        pairs: of shape `(..., num_queries, num_keys)`.

    Returns:
        output: `(..., num_queries, value_dim)`.
        log_sum_exp: `(..., num_queries)`, `log_of_zero` for a query that
            sees no key, whose output is zero.
    """
    weights, undropped, largest = softmax_weights(queries, keys, pairs)
    total = tf.reduce_sum(undropped, axis=-1, keepdims=True)
    output = tf.matmul(weights, values)
    output *= tf.math.divide_no_nan(tf.ones_like(total), total)
    return output, add_log(largest, total)[..., 0]


def softmax_weights(
    queries: tf.Tensor,
    keys: tf.Tensor,
    pairs: PairMask,
    rounded: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Weights of a softmax before its division by their sum.

    Args:
        queries: as for `attend`.
        keys: as for `attend`.
        pairs: as for `attend`.
        rounded: function that the largest scores pass before they are
            subtracted.

    Returns:
        weights: `(..., num_queries, num_keys)`, after dropout.
        undropped: the same before dropout, which the sum is of.
        largest: `(..., num_queries, 1)`. The largest score; `log_of_zero`
            for a query that sees no key.
    """
    products = tf.matmul(queries, keys, transpose_b=True)
    scores = pairs.mask(products)
    largest = tf.reduce_max(scores, axis=-1, keepdims=True)
    if rounded is not None:
        largest = rounded(largest)
    subtracted = tf.where(~is_log_of_zero(largest), largest, 0.0)
    weights = pairs.divide(tf.exp(scores - subtracted), products)
    return pairs.drop(weights), weights, largest


def merge(
    total: tuple[tf.Tensor, tf.Tensor], part: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """One softmax over the keys of both parts; a key in both counts twice.

    Args:
        total: output `(..., dim)` and log-sum-exp `(...)`.
        part: the same of other keys.

    Returns:
        The same of all keys.
    """
    (output, log_sum_exp), (output_part, log_sum_exp_part) = total, part
    largest = tf.maximum(log_sum_exp, log_sum_exp_part)
    largest = tf.where(~is_log_of_zero(largest), largest, 0.0)
    weight = tf.exp(log_sum_exp - largest)
    weight_part = tf.exp(log_sum_exp_part - largest)
    both = weight + weight_part
    merged = output * tf.math.divide_no_nan(weight, both)[..., None]
    merged += output_part * tf.math.divide_no_nan(weight_part, both)[..., None]
    return merged, add_log(largest, both)


def log_of_zero(dtype: tf.DType) -> tf.Tensor:
    """The logarithm that stands for a weight of zero.

    Finite, as are its double and its difference from any score; its `exp` is
    zero.
    """
    return tf.constant(dtype.min / 4, dtype)


def is_log_of_zero(x: tf.Tensor) -> tf.Tensor:
    """Whether logarithms are `log_of_zero`, or `-inf` that came in."""
    return x <= log_of_zero(x.dtype)


def add_log(largest: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """`largest + log(total)`, `log_of_zero` where the total is zero."""
    positive = total > 0
    log = tf.math.log(tf.where(positive, total, 1.0))
    return tf.where(positive, largest + log, log_of_zero(total.dtype))


def _huge(dtype: tf.DType) -> tf.Tensor:
    """A log-sum-exp so large that all weights are zero."""
    return -log_of_zero(dtype)


class OutputGradient(NamedTuple):
    """What the backward pass reads of the whole softmax of each query.

    Attributes:
        output: gradient with respect to the output.
        log_sum_exp: of the scores of all keys that the query saw; so large
            where it saw none that its weights are zero.
        row_sum: `rowsum(do * o)`.
    """

    output: tf.Tensor
    log_sum_exp: tf.Tensor
    row_sum: tf.Tensor

    def where(self, exists: tf.Tensor) -> "OutputGradient":
        """The same, so that all weights of queries that do not exist,
        `exp(score - lse)`, are zero."""
        huge = _huge(self.log_sum_exp.dtype)
        log_sum_exp = tf.where(exists, self.log_sum_exp, huge)
        return self._replace(log_sum_exp=log_sum_exp)


def attend_gradient(
    queries: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    d_output: OutputGradient,
    pairs: PairMask,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of `attend` with respect to keys, values and scores.

    Args:
        queries: Tensor of shape `(..., num_queries, key_dim)`.
        keys: Tensor of shape `(..., num_keys, key_dim)`.
        values: Tensor of shape `(..., num_keys, value_dim)`.
        d_output: of the queries.
        pairs: of shape `(..., num_keys, num_queries)`: transposed. They have
            no `scale`.

    Returns:
        The gradients, shaped as keys and values and `(..., num_keys,
        num_queries)`. With respect to queries it is the last one's transpose
        times the keys.
    """
    products = tf.matmul(keys, queries, transpose_b=True)
    scores = pairs.mask(products)
    weights = tf.exp(scores - d_output.log_sum_exp[..., None, :])
    weights = pairs.divide(weights, products)
    d_weights = tf.matmul(values, d_output.output, transpose_b=True)
    d_weights = pairs.drop(d_weights)
    d_scores = weights * (d_weights - d_output.row_sum[..., None, :])
    d_values = tf.matmul(pairs.drop(weights), d_output.output)
    return tf.matmul(d_scores, queries), d_values, d_scores


def output_gradient(
    d_output: tf.Tensor, output: tf.Tensor, log_sum_exp: tf.Tensor
) -> OutputGradient:
    """What `attend_gradient` reads, from what the forward pass returned."""
    d_output = tf.cast(d_output, output.dtype)
    huge = _huge(log_sum_exp.dtype)
    return OutputGradient(
        d_output,
        tf.where(is_log_of_zero(log_sum_exp), huge, log_sum_exp),
        tf.reduce_sum(d_output * output, axis=-1),
    )


def norms_of(vectors: tf.Tensor) -> tf.Tensor:
    """The lengths by which shared queries are divided to be keys.

    `sqrt(mean(k**2) + 1e-6) * sqrt(d)`, with the published constant.

    Args:
        vectors: Tensor of shape `(..., dim)`.

    Returns:
        Tensor of shape `(...)`, above zero.
    """
    square = tf.reduce_mean(vectors**2, axis=-1)
    return tf.sqrt((square + 1e-6) * vectors.shape[-1])


def to_unit_length(vectors: tf.Tensor) -> tf.Tensor:
    """Shared queries as keys."""
    return vectors / norms_of(vectors)[..., None]


def unit_length_gradient(
    unit: tf.Tensor, norms: tf.Tensor, d_unit: tf.Tensor
) -> tf.Tensor:
    """Gradient with respect to the vectors of `to_unit_length`."""
    along = tf.reduce_sum(d_unit * unit, axis=-1, keepdims=True)
    return (d_unit - unit * along) / norms[..., None]


def fill_fully_masked_rows(
    output: tf.Tensor,
    value: tf.Tensor,
    log_sum_exp: tf.Tensor,
    valid: tf.Tensor,
) -> tf.Tensor:
    """A valid token that saw no key attends to itself alone.

    No score of its own would do: a token's key is its query at unit length,
    so self has the largest score of all, and a large constant in its place
    would destroy the log-sum-exp.
    """
    fully_masked = valid & is_log_of_zero(log_sum_exp)
    value = tf.cast(value, output.dtype)
    return tf.where(fully_masked[..., None], value, output)


def fully_masked_rows_gradient(
    d_output: tf.Tensor, log_sum_exp: tf.Tensor, valid: tf.Tensor
) -> tf.Tensor:
    """Gradient of `fill_fully_masked_rows` with respect to the values."""
    fully_masked = valid & is_log_of_zero(log_sum_exp)
    return tf.where(fully_masked[..., None], d_output, 0.0)
