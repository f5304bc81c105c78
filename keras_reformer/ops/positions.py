"""Positions from tables, one for each axis of a grid."""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.ops.shapes import Length, ceil_div


def axial_positions(
    tables: Sequence[tf.Tensor], length: Length, start_index=0
) -> tf.Tensor:
    """Joins each position's rows of all tables, the last axis fastest.

    From position 0 on this is broadcasting, whose gradient is a sum; a
    gather's would scatter-add something as long as the sequence.

    Args:
        tables: Tensors of shape `(size, dim)`, one for each axis.
        length: Number of positions.
        start_index: First position.

    Returns:
        Tensor of shape `(length, sum of dims)`.
    """
    sizes = [table.shape[0] for table in tables]
    if not isinstance(length, int):
        length = _within_tables(length, math.prod(sizes))
    if not (isinstance(start_index, int) and start_index == 0):
        return _gather(tables, sizes, start_index + tf.range(length))
    inner = math.prod(sizes[1:])
    rows = ceil_div(length, inner)
    parts = [tables[0][:rows], *tables[1:]]
    grid = [rows, *sizes[1:]]
    spread = []
    for axis, part in enumerate(parts):
        shape = [1] * len(grid)
        shape[axis] = grid[axis]
        part = tf.reshape(part, [*shape, part.shape[-1]])
        spread.append(tf.broadcast_to(part, [*grid, part.shape[-1]]))
    joined = tf.concat(spread, axis=-1)
    return tf.reshape(joined, [rows * inner, joined.shape[-1]])[:length]


def _within_tables(length: tf.Tensor, most: int) -> tf.Tensor:
    """The length, known only after the check, so that the check speaks first.

    XLA drops the check, but knows all lengths while tracing.
    """
    check = tf.debugging.assert_less_equal(
        length, most, message="The inputs reach beyond the position table."
    )
    # Eagerly a check is no operation, and has raised already.
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(length)


def _gather(tables, sizes, positions) -> tf.Tensor:
    rows = []
    for table, size in zip(reversed(tables), reversed(sizes), strict=True):
        rows.append(tf.gather(table, positions % size))
        positions = positions // size
    return tf.concat(rows[::-1], axis=-1)
