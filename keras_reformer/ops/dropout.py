"""Dropout with counter-based masks, which fuse into their use.

A mask from a stateless random op depends on its seed alone. A compiler may
therefore compute it early, or merge the forward pass's with the backward
pass's, and keep it alive in between: memory grows with depth again. Here a
mask element is an integer hash of the element's own coordinates and a 64-bit
seed. It costs a few integer operations, fuses into the multiplication that
uses it, and is never stored.
"""

import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.shapes import size
from keras_reformer.ops.random import grid, random_bits, u32


def keep_scale(
    rate: float, seed: tf.Tensor, *coordinates: tf.Tensor, dtype=tf.float32
) -> tf.Tensor:
    """Dropout's factors: `1 / (1 - rate)` or, with probability `rate`, zero.

    Args:
        rate: float in `[0, 1)`. Share of zeros.
        seed: Integer tensor of shape `(2,)`.
        *coordinates: as `random_bits` takes them.
        dtype: floating dtype of the result. Defaults to float32.

    Returns:
        Tensor of `dtype` and of the coordinates' common shape.
    """
    kept = random_bits(seed, *coordinates) >= u32(int(rate * 2**32))
    scale = tf.constant(1.0 / (1.0 - rate), dtype)
    return tf.where(kept, scale, tf.zeros((), dtype))


def dropout(
    inputs: tf.Tensor,
    rate: float,
    seed: tf.Tensor,
    shared_axes: tuple[int, ...] = (),
    first_position: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Sets a share `rate` of the elements to zero and scales up the others.

    Neither pass stores a mask: the backward pass makes it anew from the seed.

    Args:
        inputs: Floating tensor of any shape.
        rate: float in `[0, 1)`. Share of zeros.
        seed: Integer tensor of shape `(2,)`. The same seed, the same mask.
        shared_axes: axes along which all elements share one draw.
        first_position: position of the first input in the sequence, for
            inputs `(batch, length, dim)` that are a chunk of it.

    Returns:
        Tensor of the inputs' shape and dtype.
    """
    coordinates = _coordinates(inputs, shared_axes, first_position)
    # The mask depends on no argument that gets a gradient.
    masked = custom_vjp(_forward, _backward, first_order=False)
    return masked(inputs, rate, seed, coordinates)


def _forward(x, rate, seed, coordinates) -> tuple:
    scale = keep_scale(rate, seed, *coordinates, dtype=x.dtype)
    return x * scale, (rate, seed, coordinates)


def _backward(residuals, d_y) -> tuple:
    rate, seed, coordinates = residuals
    scale = keep_scale(rate, seed, *coordinates, dtype=d_y.dtype)
    return d_y * scale, None, None, None


def _coordinates(
    x: tf.Tensor, shared_axes: tuple[int, ...], first_position
) -> list[tf.Tensor]:
    """An index along each axis that does not share its draws."""
    rank = x.shape.rank
    shared = {axis % rank for axis in shared_axes}
    indices = grid([size(x, axis) for axis in range(rank)])
    if rank > 1:
        indices[1] += first_position
    return [index for axis, index in enumerate(indices) if axis not in shared]
