"""Softmax attention of chunks of queries over a window of chunks of keys.

Everything in this package that attends does it here. A *block* is the chunk
of queries with the chunk of keys `offset` chunks away; a query's window is
the blocks of offsets `-num_chunks_before ... num_chunks_after`. Each block is
a product of its own: laying the window's keys side by side would copy them.

The forward pass returns the normalised output and the log-sum-exp of the
scores, which is all that several such passes need to become one softmax. The
backward pass takes the log-sum-exp of that whole softmax and recomputes the
scores (Dao et al. 2022, "FlashAttention", appendix B.4):

    p = exp(s - lse)      ds = p * (m * (do . v) - rowsum(do * o))

with `m` the dropout mask over its keep probability. No score outlives its
step. Scores, softmax and sums are float32 at least, whatever comes in.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.dropout import keep_scale
from keras_reformer.ops.shapes import Length, map_tensors, pad_axis, size


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
        return range(-self.before, self.after + 1)


class Tokens(NamedTuple):
    """What masks need to know of the tokens in a row of vectors.

    Attributes:
        position: int32. Place in the sequence; -1 hides a key.
        bucket: int32, or None where buckets do not matter.
        ranks: int32 `(..., num_hashes)`: the token's rank in every round's
            order, or None where pairs that meet twice count twice.
        buckets: int32 `(..., num_hashes)`, or None, likewise.
    """

    position: tf.Tensor
    bucket: tf.Tensor | None = None
    ranks: tf.Tensor | None = None
    buckets: tf.Tensor | None = None


class Dropping(NamedTuple):
    """Dropout of attention weights.

    A mask element depends on the stream, the query's rank and the key's slot
    in the window alone, not on how a loop groups them.

    Attributes:
        rate: float in `[0, 1)`.
        seed: integer tensor of shape `(2,)`.
    """

    rate: float
    seed: tf.Tensor


class Step(NamedTuple):
    """One group of chunks: `(rows, chunks, chunk_length, ...)` throughout.

    `keys`, `values` and `key_tokens` hold the neighbouring chunks too:
    `before + chunks + after`.
    """

    queries: tf.Tensor
    keys: tf.Tensor
    values: tf.Tensor
    query_tokens: Tokens
    key_tokens: Tokens
    stream: tf.Tensor
    rank: tf.Tensor


def shift(x, offset: int, window: Window, chunks: Length):
    """The chunks of `x` that lie `offset` from the step's own."""
    start = window.before + offset
    return map_tensors(lambda part: part[:, start : start + chunks], x)


def allowed(window: Window, query: Tokens, key: Tokens) -> tf.Tensor:
    """Whether positions alone let a query see a key."""
    q, k = query.position[..., :, None], key.position[..., None, :]
    seen = k >= 0
    if window.causal:
        seen &= (k <= q) if window.sees_itself else (k < q)
    elif not window.sees_itself:
        seen &= k != q
    return seen


def visible(
    window: Window, offset: int, query: Tokens, key: Tokens
) -> tf.Tensor:
    """Whether a query sees a key, `(rows, chunks, slots, slots)`."""
    seen = allowed(window, query, key)
    if window.same_bucket:
        seen &= query.bucket[..., :, None] == key.bucket[..., None, :]
        seen &= _within_ranks(window, offset)
    return seen


def _within_ranks(window: Window, offset: int) -> tf.Tensor:
    """Only the outermost blocks hold keys that are too far away."""
    slot = tf.range(window.chunk_length)
    q, k = slot[:, None], slot[None, :]
    near = tf.ones_like(q == k)
    if offset == -window.before:
        near &= k >= q
    if offset == window.after:
        near &= k <= q
    return near


def score(
    step: Step, offset: int, window: Window, bias: Callable | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores of a block and whether they count."""
    chunks = size(step.queries, 1)
    keys = shift(step.keys, offset, window, chunks)
    tokens = shift(step.key_tokens, offset, window, chunks)
    scores = tf.matmul(step.queries, keys, transpose_b=True)
    if bias is not None:
        scores += bias(step.query_tokens, tokens)
    return scores, visible(window, offset, step.query_tokens, tokens)


def _kept(
    step: Step, offset: int, window: Window, dropping: Dropping | None
) -> tf.Tensor | float:
    if dropping is None:
        return 1.0
    length = size(step.keys, 2)
    slot = tf.range(length) + (offset + window.before) * length
    return keep_scale(
        dropping.rate,
        dropping.seed,
        step.stream[:, None, None, None],
        step.rank[:, :, :, None],
        slot,
        dtype=step.queries.dtype,
    )


def attend(
    step: Step,
    window: Window,
    dropping: Dropping | None = None,
    bias: Callable | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Softmax attention over each query's window.

    Returns:
        output: `(rows, chunks, chunk_length, value_dim)`.
        log_sum_exp: `(rows, chunks, chunk_length)`, `-inf` for a query that
            sees nothing, whose output is zero.
    """
    infinity = tf.constant(float("inf"), step.queries.dtype)
    blocks = []
    for offset in window.offsets:
        scores, seen = score(step, offset, window, bias)
        blocks.append(tf.where(seen, scores, -infinity))
    largest = tf.reduce_max(
        tf.stack([tf.reduce_max(b, axis=-1) for b in blocks]), axis=0
    )
    finite = tf.where(largest != -infinity, largest, 0.0)
    total, output = 0.0, 0.0
    for offset, scores in zip(window.offsets, blocks, strict=True):
        weights = tf.exp(scores - finite[..., None])
        total += tf.reduce_sum(weights, axis=-1)
        values = shift(step.values, offset, window, size(step.queries, 1))
        output += tf.matmul(
            weights * _kept(step, offset, window, dropping), values
        )
    output = tf.math.divide_no_nan(output, total[..., None])
    return output, finite + tf.math.log(total)


class Upstream(NamedTuple):
    """What the backward pass of a step knows of the whole softmax.

    Attributes:
        output: gradient of the output, zero where the query does not count.
        log_sum_exp: of all that the query saw; `+inf` where it saw nothing.
        row_sum: `rowsum(do * o)`.
    """

    output: tf.Tensor
    log_sum_exp: tf.Tensor
    row_sum: tf.Tensor


def attend_gradient(
    step: Step,
    upstream: Upstream,
    window: Window,
    dropping: Dropping | None = None,
    bias: Callable | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of `attend` by queries, keys and values.

    Returns:
        The gradients, shaped as `step.queries`, `step.keys`, `step.values`.
    """
    chunks = size(step.queries, 1)
    d_queries, d_keys, d_values = 0.0, 0.0, 0.0
    for offset in window.offsets:
        scores, seen = score(step, offset, window, bias)
        weights = tf.exp(scores - upstream.log_sum_exp[..., None])
        weights = tf.where(seen, weights, 0.0)
        kept = _kept(step, offset, window, dropping)
        values = shift(step.values, offset, window, chunks)
        d_weights = tf.matmul(upstream.output, values, transpose_b=True)
        d_scores = weights * (d_weights * kept - upstream.row_sum[..., None])
        keys = shift(step.keys, offset, window, chunks)
        d_queries += tf.matmul(d_scores, keys)
        around = (window.before + offset, window.after - offset)
        d_keys += pad_axis(
            tf.matmul(d_scores, step.queries, transpose_a=True), 1, *around
        )
        d_values += pad_axis(
            tf.matmul(weights * kept, upstream.output, transpose_a=True),
            1,
            *around,
        )
    return d_queries, d_keys, d_values


def upstream_of(
    d_output: tf.Tensor, output: tf.Tensor, log_sum_exp: tf.Tensor
) -> Upstream:
    """Prepares the gradient of an output for `attend_gradient`."""
    d_output = tf.cast(d_output, output.dtype)
    infinity = tf.constant(float("inf"), log_sum_exp.dtype)
    return Upstream(
        d_output,
        tf.where(log_sum_exp == -infinity, infinity, log_sum_exp),
        tf.reduce_sum(d_output * output, axis=-1),
    )


def cast_like(tensors: tuple, likes: tuple) -> tuple:
    """Casts each tensor to the dtype of its counterpart."""
    return tuple(
        tf.cast(x, like.dtype) for x, like in zip(tensors, likes, strict=True)
    )


def unit_length(vectors: tf.Tensor) -> tf.Tensor:
    """Scales vectors to unit length, as shared queries' keys are.

    `k / sqrt(mean(k**2) + 1e-6) / sqrt(d)`, the published constant.
    """
    return vectors * _inverse_length(vectors)


def unit_length_gradient(vectors: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Gradient of `unit_length` by its vectors."""
    inverse = _inverse_length(vectors)
    along = tf.reduce_sum(upstream * vectors, axis=-1, keepdims=True)
    return inverse * (upstream - vectors * along * inverse**2)


def _inverse_length(vectors: tf.Tensor) -> tf.Tensor:
    width = vectors.shape[-1]
    square = tf.reduce_mean(vectors**2, axis=-1, keepdims=True)
    return tf.math.rsqrt((square + 1e-6) * width)


def give_lonely_their_value(
    output: tf.Tensor,
    value: tf.Tensor,
    log_sum_exp: tf.Tensor,
    valid: tf.Tensor,
) -> tf.Tensor:
    """A valid token that saw nothing at all attends to itself alone.

    No score of its own would do: a token's key is its query at unit length,
    so self has the largest score of all, and a large constant in its place
    would destroy the log-sum-exp.
    """
    lonely = valid & (log_sum_exp == -float("inf"))
    return tf.where(lonely[..., None], tf.cast(value, output.dtype), output)


def lonely_value_gradient(
    d_output: tf.Tensor, log_sum_exp: tf.Tensor, valid: tf.Tensor
) -> tf.Tensor:
    """Gradient of `give_lonely_their_value` by the values."""
    lonely = valid & (log_sum_exp == -float("inf"))
    return tf.where(lonely[..., None], d_output, 0.0)
