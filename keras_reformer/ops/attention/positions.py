"""Position encodings: axial tables, sinusoids and rotary angles."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_reformer.ops.loops.shapes import (
    Length,
    ceil_div,
    size,
    softmax_dtype,
)
from keras_reformer.ops.vocabulary import require


def checked_start_index(start_index, length: Length, most: int) -> tf.Tensor:
    """First positions of rows that end within the positions that there are.

    Args:
        start_index: First position, or one for each row `(batch,)`.
        length: Number of positions.
        most: Positions that there are.

    Returns:
        `start_index` as an int32 tensor. In a graph that does not know the
        values it depends on an assertion.

    Raises:
        ValueError: eagerly, and while tracing where the values are known.
    """
    start = tf.cast(start_index, tf.int32)
    message = (
        "Rows, padding included, must lie within the positions that there "
        "are. Expected "
        f"start_index + length <= {most} and start_index >= 0."
    )
    first, count = tf.get_static_value(start), tf.get_static_value(length)
    if first is None or count is None:
        allowed = (start >= 0) & (start <= most - length)
        refusal = require(allowed, "start_index", start, message)
        with tf.control_dependencies(refusal):
            return tf.identity(start)
    outside = (first < 0) | (first > most - count)
    if outside.any():
        raise ValueError(
            f"{message} Received: start_index={first[outside][:5].tolist()}, "
            f"length={count}, max length {most}"
        )
    return start


def axial_positions(
    tables: Sequence[tf.Tensor], length: Length, start_index=0, positions=None
) -> tf.Tensor:
    """Joins each position's rows of all tables, the last axis fastest.

    From position 0 on this is broadcasting, whose gradient is a sum; that of
    a gather would be a scatter-add as long as the sequence.

    Args:
        tables: Tensors of shape `(size, dim)`, one for each axis.
        length: Number of positions.
        start_index: First position, or one for each row `(batch,)`.
        positions: int32 tensor `(batch, length)` of all positions, or None
            where they count from `start_index`.

    Returns:
        Tensor of shape `(length, sum of dims)`, or `(batch, length, sum of
        dims)`. Of positions beyond the tables that a graph does not know
        while it is traced, TensorFlow's gather makes an error on a CPU, zeros
        on a GPU, and XLA the last row of the first axis.
    """
    sizes = [table.shape[0] for table in tables]
    if positions is not None:
        return _gather(tables, sizes, positions)
    if not isinstance(length, int):
        length = _within_tables(length, math.prod(sizes))
    if not (isinstance(start_index, int) and start_index == 0):
        if tf.get_static_value(start_index) is not None:
            checked_start_index(start_index, length, math.prod(sizes))
        return _gather(tables, sizes, _positions(start_index, length, 2))
    inner = math.prod(sizes[1:])
    rows = ceil_div(length, inner)
    parts = [tables[0][:rows], *tables[1:]]
    grid = [rows, *sizes[1:]]
    broadcast = []
    for axis, part in enumerate(parts):
        shape = [1] * len(grid)
        shape[axis] = grid[axis]
        part = tf.reshape(part, [*shape, part.shape[-1]])
        broadcast.append(tf.broadcast_to(part, [*grid, part.shape[-1]]))
    joined = tf.concat(broadcast, axis=-1)
    return tf.reshape(joined, [rows * inner, joined.shape[-1]])[:length]


def _within_tables(length: tf.Tensor, most: int) -> tf.Tensor:
    """The length, with a data dependency on the check that it fits.

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
    for table, axis in zip(tables[:0:-1], sizes[:0:-1], strict=True):
        rows.append(tf.gather(table, positions % axis))
        positions = positions // axis
    # Without a modulus: positions beyond the tables must not begin anew.
    rows.append(tf.gather(tables[0], positions))
    return tf.concat(rows[::-1], axis=-1)


_DIGIT = 128
# 128 ** 4 positions and more than enough.
_DIGITS = 4


def _positions(start_index, length: Length, rank: int) -> tf.Tensor:
    """`(length,)`, or with a start for each row, as a tensor of that rank."""
    start = tf.convert_to_tensor(start_index, tf.int32)
    if start.shape.rank:
        start = tf.reshape(start, [-1] + [1] * (rank - 1))
    return start + tf.range(length)


def angles(
    positions: tf.Tensor, dim: int, max_wavelength: float, dtype: tf.DType
) -> tf.Tensor:
    """Angles of positions in the planes of `dim` coordinates.

    `position * max_wavelength ** (-2 i / dim)`, modulo `2 pi`. A sum over the
    position's digits, the angle of each reduced in float64: a float32 product
    with a position near a million is off by 0.06 radians, this sum by less
    than 1e-4.

    Args:
        positions: int32 tensor of any shape.
        dim: int. Twice the number of planes, or one less.
        max_wavelength: float.
        dtype: dtype of the result.

    Returns:
        Tensor of shape `(*positions.shape, ceil(dim / 2))`.
    """
    planes = np.arange(-(-dim // 2))
    frequency = float(max_wavelength) ** (-2 * planes / dim)
    total = tf.zeros((), dtype)
    for power in range(_DIGITS):
        # From -pi to pi: the smaller the angle, the less its product rounds.
        angle = (_DIGIT**power * frequency + math.pi) % (2 * math.pi) - math.pi
        digit = positions // _DIGIT**power % _DIGIT
        total += tf.cast(digit[..., None], dtype) * tf.constant(angle, dtype)
    return total


def rotate(
    vectors: tf.Tensor, max_wavelength: float, start_index=0, positions=None
) -> tf.Tensor:
    """Rotates coordinates `i` and `dim / 2 + i` by the position's angle `i`.

    Args:
        vectors: Tensor of shape `(..., length, dim)`.
        max_wavelength: float.
        start_index: Position of the first vector, or one for each row.
        positions: int32 tensor `(batch, length)` of all positions, or None
            where they count from `start_index`.

    Returns:
        Tensor of the same shape and dtype, computed in float32 at least.
    """
    dtype = softmax_dtype(vectors.dtype)
    length, rank = size(vectors, -2), vectors.shape.rank
    if positions is None:
        positions = _positions(start_index, length, rank - 1)
    else:
        shape = [-1] + [1] * (rank - 3) + [length]
        positions = tf.reshape(positions, shape)
    angle = angles(positions, vectors.shape[-1], max_wavelength, dtype)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    first, second = tf.split(tf.cast(vectors, dtype), 2, axis=-1)
    rotated = first * cosine - second * sine, first * sine + second * cosine
    return tf.cast(tf.concat(rotated, axis=-1), vectors.dtype)


def sine_positions(
    length: Length,
    dim: int,
    max_wavelength: float,
    start_index=0,
    dtype: tf.DType = tf.float32,
    positions=None,
) -> tf.Tensor:
    """Sine and cosine of each angle of each position, interleaved.

    Args:
        length: Number of positions.
        dim: int. Number of features; an odd one leaves out the last cosine.
        max_wavelength: float.
        start_index: First position, or one for each row `(batch,)`.
        dtype: dtype of the result, computed in float32 at least.
        positions: int32 tensor `(batch, length)` of all positions, or None
            where they count from `start_index`.

    Returns:
        Tensor of shape `(length, dim)` or `(batch, length, dim)`.
    """
    if positions is None:
        positions = _positions(start_index, length, 2)
    angle = angles(positions, dim, max_wavelength, softmax_dtype(dtype))
    pairs = tf.stack([tf.sin(angle), tf.cos(angle)], axis=-1)
    rows = [size(angle, axis) for axis in range(angle.shape.rank - 1)]
    joined = tf.reshape(pairs, [*rows, 2 * angle.shape[-1]])
    return tf.cast(joined[..., :dim], dtype)
