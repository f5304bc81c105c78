"""Dropout masks made of a counter, so that they fuse into their use.

A mask from a stateless random op depends on its seed alone. A compiler may
therefore compute it early, or merge the forward pass's with the backward
pass's, and keep it alive in between: memory grows with depth again. Here a
mask element is an integer hash of the element's own coordinates and a 64-bit
seed. It costs a few integer operations, fuses into the multiplication that
uses it, and is never stored.
"""

import tensorflow as tf

from keras_reformer.ops.shapes import size


def _mix(bits: tf.Tensor) -> tf.Tensor:
    """A bijection of 32-bit integers in which each bit moves all others.

    The multipliers are those of the two-round hash with the least known bias
    (C. Wellons, "Prospecting for Hash Functions", 2018).
    """
    shift = tf.bitwise.right_shift
    bits = tf.bitwise.bitwise_xor(bits, shift(bits, _u32(16)))
    bits = bits * _u32(0x7FEB352D)
    bits = tf.bitwise.bitwise_xor(bits, shift(bits, _u32(15)))
    bits = bits * _u32(0x846CA68B)
    return tf.bitwise.bitwise_xor(bits, shift(bits, _u32(16)))


def _u32(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint32)


def random_bits(seed: tf.Tensor, *coordinates: tf.Tensor) -> tf.Tensor:
    """Uniform 32-bit integers, a pure function of a seed and of coordinates.

    Args:
        seed: Integer tensor of shape `(2,)`, as a
            `keras.random.SeedGenerator` draws it.
        *coordinates: Integer tensors that broadcast against each other. Put
            those that vary least first: their share is hashed only once.

    Returns:
        uint32 tensor of the coordinates' common shape.
    """
    seed = tf.cast(seed, tf.uint32)
    bits = _mix(tf.bitwise.bitwise_xor(_mix(seed[0]), seed[1]))
    for coordinate in coordinates:
        bits = _mix(
            tf.bitwise.bitwise_xor(bits, tf.cast(coordinate, tf.uint32))
        )
    return bits


def keep_scale(
    rate: float, seed: tf.Tensor, *coordinates: tf.Tensor, dtype=tf.float32
) -> tf.Tensor:
    """What dropout multiplies by: `1 / (1 - rate)` or, at `rate`, zero.

    Args:
        rate: float in `[0, 1)`. Share of zeros.
        seed: Integer tensor of shape `(2,)`.
        *coordinates: as `random_bits` takes them.
        dtype: floating dtype of the result. Defaults to float32.

    Returns:
        Tensor of `dtype` and of the coordinates' common shape.
    """
    kept = random_bits(seed, *coordinates) >= _u32(int(rate * 2**32))
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

    Neither pass stores a mask: the gradient makes it anew from the seed.

    Args:
        inputs: Floating tensor of any shape.
        rate: float in `[0, 1)`. Share of zeros.
        seed: Integer tensor of shape `(2,)`. The same seed, the same mask.
        shared_axes: axes along which all elements share one draw.
        first_position: where the inputs begin in the sequence, for inputs
            `(batch, length, dim)` that are a chunk of it.

    Returns:
        Tensor of the inputs' shape and dtype.
    """

    def scale():
        return keep_scale(rate, seed, *coordinates, dtype=inputs.dtype)

    coordinates = _coordinates(inputs, shared_axes, first_position)

    @tf.custom_gradient
    def apply(x):
        def gradient(upstream):
            return upstream * scale()

        return x * scale(), gradient

    return apply(inputs)


def _coordinates(
    x: tf.Tensor, shared_axes: tuple[int, ...], first_position
) -> list[tf.Tensor]:
    """An index along each axis that does not share its draws."""
    rank = x.shape.rank
    shared = {axis % rank for axis in shared_axes}
    coordinates = []
    for axis in sorted(set(range(rank)) - shared):
        index = tf.range(size(x, axis))
        if axis == 1:
            index += first_position
        coordinates.append(tf.reshape(index, [-1] + [1] * (rank - 1 - axis)))
    return coordinates


def split_seed(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Several seeds from one, for a call that draws several things.

    Args:
        seed: Integer tensor of shape `(2,)`.
        count: int. Number of seeds wanted.

    Returns:
        List of int32 tensors of shape `(2,)`.
    """
    bits = tf.bitcast(random_bits(seed, tf.range(2 * count)), tf.int32)
    return [bits[2 * index : 2 * index + 2] for index in range(count)]
