"""Attention of one new token of each row to tokens of a cache."""

import functools
from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.attention import kernel
from keras_reformer.ops.attention.bias import PositionBias
from keras_reformer.ops.attention.importance import Importance
from keras_reformer.ops.attention.tokens import TokenInfo
from keras_reformer.ops.attention.window import visible_by_position
from keras_reformer.ops.loops.shapes import size, softmax_dtype


class Step(NamedTuple):
    """One new token of each row, as an attention layer sees it.

    Attributes:
        query: `(batch, num_heads, 1, key_dim)`.
        key: of the same shape. For shared query-keys it is the query.
        value: `(batch, num_heads, 1, value_dim)`.
        position: int32 `(batch,)`.
        shared: bool. Keys are scaled to unit length, and a token sees itself
            only where it sees no other token.
        bias: added to the scores, or None.
        discount: bool. A key that N rounds show counts once, not N times.
        importance: divides by the probability that rounds show a key, or
            None.
        by_chance: `(batch,)`, what `Importance.shown_by_chance` returned.
        num_global: int. Tokens at the beginning that are seen whatever rounds
            show.
    """

    query: tf.Tensor
    key: tf.Tensor
    value: tf.Tensor
    position: tf.Tensor
    shared: bool
    bias: PositionBias | None = None
    discount: bool = False
    importance: Importance | None = None
    by_chance: tf.Tensor | None = None
    num_global: int = 0

    def probability(self, scores: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Probability that rounds show the keys of these scores."""
        by_chance = self.by_chance
        if by_chance is not None:
            by_chance = by_chance[:, None, None, None]
        query = tf.cast(self.query, scores.dtype)
        inverse_norms = 1 / kernel.norms_of(query)[..., None]
        shown = self.importance.probability(scores, inverse_norms, by_chance)
        if not self.num_global:
            return shown
        one = tf.ones((), shown.dtype)
        return tf.where(positions < self.num_global, one, shown)


def attend_to_positions(
    step: Step, key: tf.Tensor, value: tf.Tensor, positions: tf.Tensor
) -> tf.Tensor:
    """Attention to some of the cached tokens.

    Args:
        step: the new tokens.
        key: `(batch, num_heads, capacity, key_dim)`.
        value: `(batch, num_heads, capacity, value_dim)`.
        positions: int32 `(batch, num_heads, num_hashes, n)`: of the keys, -1
            for none. One that occurs twice counts twice, but for
            `step.discount`.

    Returns:
        Tensor of shape `(batch, num_heads, 1, value_dim)` in float32 at least.
    """
    shape = [size(positions, 0), positions.shape[1], -1]
    positions = tf.reshape(positions, shape)
    if step.num_global:
        positions = _with_global(positions, step.num_global)
    index = tf.maximum(positions, 0)
    if step.num_global:
        # A cache may be shorter than that.
        index = tf.minimum(index, size(key, 2) - 1)
    key, value = (tf.gather(x, index, batch_dims=2) for x in (key, value))
    return attend(step, key, value, positions)


def _with_global(positions: tf.Tensor, num_global: int) -> tf.Tensor:
    """Positions of global tokens, once, after all others `(b, h, n)`."""
    shape = [size(positions, 0), positions.shape[1], num_global]
    first = tf.broadcast_to(tf.range(num_global), shape)
    others = tf.where(positions < num_global, -1, positions)
    return tf.concat([others, first], axis=2)


def attend(
    step: Step, key: tf.Tensor, value: tf.Tensor, positions: tf.Tensor
) -> tf.Tensor:
    """Softmax attention of one query a row and head.

    Args:
        step: the new tokens.
        key: `(batch, num_heads, n, key_dim)`. Of fewer heads, each serves as
            many of the queries' heads in a row as there are to each.
        value: `(batch, num_heads, n, value_dim)`, of as many heads.
        positions: int32, of the keys, -1 for none. Broadcasts to `(batch,
            num_heads, n)`.

    Returns:
        Tensor of shape `(batch, num_heads, 1, value_dim)` in float32 at least.
    """
    dtype = softmax_dtype(step.query.dtype)
    query, key, value = (tf.cast(x, dtype) for x in (step.query, key, value))
    heads, shared_heads = query.shape[1], key.shape[1]
    if shared_heads != heads:
        # Queries that share keys are the rows of one product.
        query = _with_heads(query, shared_heads, heads // shared_heads)
    query_info = TokenInfo(step.position[:, None, None, None])
    key_info = TokenInfo(positions[:, :, None])
    visible = visible_by_position(True, not step.shared, query_info, key_info)
    scale = None
    if step.shared:
        scale = 1 / kernel.norms_of(key)[..., None, :]
    pairs = kernel.PairMask(
        visible,
        bias=_bias(step, query_info, key_info, shared_heads, dtype),
        scale=scale,
        count=_count_duplicates(key_info, visible) if step.discount else None,
        probability=functools.partial(
            step.probability, positions=key_info.position
        )
        if step.importance
        else None,
    )
    output, log_sum_exp = kernel.attend(query, key, value, pairs)
    if not step.shared:
        alone = shared_heads == heads
        return output if alone else _with_heads(output, heads, 1)
    valid = tf.constant(True)
    return kernel.fill_fully_masked_rows(output, step.value, log_sum_exp, valid)


def _with_heads(x: tf.Tensor, heads: int, rows: int) -> tf.Tensor:
    """`(b, ..., d)` to `(b, heads, rows, d)`."""
    return tf.reshape(x, [size(x, 0), heads, rows, x.shape[-1]])


def _bias(step, query_info, key_info, heads, dtype) -> tf.Tensor | None:
    if step.bias is None:
        return None
    numbers = tf.range(step.bias.num_heads)
    if heads == step.bias.num_heads:
        numbers = numbers[:, None, None]
    else:
        numbers = tf.reshape(numbers, [heads, -1, 1])
    return tf.cast(step.bias.of(query_info, key_info, numbers), dtype)


def _count_duplicates(key_info, visible) -> tf.Tensor:
    """Number of times that each key occurs among the keys, at least one."""
    position = tf.where(visible, key_info.position, -1)
    same = position[..., :, None] == position[..., None, :]
    return tf.math.count_nonzero(same, axis=-1, dtype=tf.int32)
