"""Shapes whose lengths are known while tracing or only when running."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Length = int | tf.Tensor


def size(x: tf.Tensor, axis: int) -> Length:
    """An axis's length: an int where it is known, else a scalar tensor."""
    known = x.shape[axis]
    return tf.shape(x)[axis] if known is None else known


def ceil_div(length: Length, divisor: Length) -> Length:
    """`length / divisor`, rounded up."""
    return -(-length // divisor)


def at_least(least: int, length: Length) -> Length:
    """The larger of the two."""
    if isinstance(length, int):
        return max(least, length)
    return tf.maximum(least, length)


def pad_axis(
    x: tf.Tensor, axis: int, before: Length, after: Length, value=0
) -> tf.Tensor:
    """Pads an axis with `before` and `after` constant elements."""
    if (
        isinstance(before, int)
        and isinstance(after, int)
        and not before + after
    ):
        return x
    widths = [[0, 0] for _ in range(x.shape.rank)]
    widths[axis] = [before, after]
    return tf.pad(x, widths, constant_values=tf.cast(value, x.dtype))


def split_into_chunks(
    x: tf.Tensor, chunk_length: int, padding: int = 0
) -> tf.Tensor:
    """`(g, t, ...)` to `(g, n, c, ...)`, the last chunk padded."""
    length, rest = size(x, 1), x.shape[2:].as_list()
    chunks = ceil_div(length, chunk_length)
    x = pad_axis(x, 1, 0, chunks * chunk_length - length, padding)
    return tf.reshape(x, [size(x, 0), chunks, chunk_length, *rest])


def join_chunks(x: tf.Tensor, length: Length) -> tf.Tensor:
    """`(g, n, c, ...)` to `(g, length, ...)`, the padding cut off."""
    rest = x.shape[3:].as_list()
    joined = tf.reshape(x, [size(x, 0), size(x, 1) * size(x, 2), *rest])
    return joined[:, :length]


def join_steps(stacked: tf.Tensor, length: Length) -> tf.Tensor:
    """`(n, g, c, ...)`, one chunk of each row a step, to `(g, length, ...)`."""
    order = [1, 0, *range(2, stacked.shape.rank)]
    return join_chunks(tf.transpose(stacked, order), length)


def pad_to_multiple(
    x: tf.Tensor, mask: tf.Tensor | None, multiple: int, above: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pads rows with zeros, and the mask that hides them.

    Args:
        x: Tensor of shape `(batch, length, ...)`.
        mask: Boolean tensor `(batch, length)`, or None for all True.
        multiple: int. What the length becomes a multiple of.
        above: int. Rows of at most this length are not padded.

    Returns:
        Both, padded.
    """
    length = size(x, 1)
    spare = ceil_div(length, multiple) * multiple - length
    spare = choose_by_length(length, above, lambda: 0, lambda: spare)
    if mask is None:
        mask = tf.ones([size(x, 0), length], tf.bool)
    return pad_axis(x, 1, 0, spare), pad_axis(mask, 1, 0, spare, False)


def softmax_dtype(dtype: tf.DType) -> tf.DType:
    """float32, or float64 where the inputs already are."""
    return tf.float64 if tf.as_dtype(dtype) == tf.float64 else tf.float32


def map_tensors(function: Callable[[tf.Tensor], tf.Tensor], structure: Any):
    """Maps a function over the tensors of a structure; None stays None."""
    return tf.nest.map_structure(
        lambda x: None if x is None else function(x), structure
    )


def choose_by_length(
    length: Length, longest: int, short: Callable, otherwise: Callable
):
    """`short()` where `length <= longest`, else `otherwise()`.

    Decided while tracing where the length is known or `longest` is less than
    1; by `tf.cond` otherwise.
    """
    if longest < 1:
        return otherwise()
    if isinstance(length, int):
        return short() if length <= longest else otherwise()
    return tf.cond(length <= longest, short, otherwise)
