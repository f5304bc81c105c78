"""Random numbers that are a pure function of a seed and of coordinates.

An integer hash, so the same on every device: TensorFlow's own stateless
floats differ between a graph and XLA, and an exported model must hash as it
did in training. A few integer operations also fuse into the op that uses
them.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.ops.loops.shapes import Length


def _mix(bits: tf.Tensor) -> tf.Tensor:
    """A bijection of 32-bit integers in which each bit affects all others.

    The multipliers are those of the two-round hash with the least known bias
    (C. Wellons, "Prospecting for Hash Functions", 2018).
    """
    shift = tf.bitwise.right_shift
    bits = tf.bitwise.bitwise_xor(bits, shift(bits, u32(16)))
    bits = bits * u32(0x7FEB352D)
    bits = tf.bitwise.bitwise_xor(bits, shift(bits, u32(15)))
    bits = bits * u32(0x846CA68B)
    return tf.bitwise.bitwise_xor(bits, shift(bits, u32(16)))


def u32(number: int) -> tf.Tensor:
    """A uint32 constant."""
    return tf.constant(number, tf.uint32)


def random_bits(seed: tf.Tensor, *coordinates: tf.Tensor) -> tf.Tensor:
    """Uniform 32-bit integers, a pure function of a seed and of coordinates.

    Args:
        seed: Integer tensor of shape `(2,)`, as a
            `keras.random.SeedGenerator` draws it.
        *coordinates: Integer tensors that broadcast against each other, the
            smallest first: it is hashed before it is broadcast.

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


def uniform(seed: tf.Tensor, *coordinates: tf.Tensor) -> tf.Tensor:
    """Uniform draws from the open interval (0, 1); see `random_bits`."""
    # The centres of 2**23 intervals are exact in float32.
    bits = random_bits(seed, *coordinates)
    return (tf.cast(bits // u32(512), tf.float32) + 0.5) * 2.0**-23


def grid(shape: Sequence[Length]) -> list[tf.Tensor]:
    """Coordinates of the elements of a shape: one index an axis, broadcast."""
    rank = len(shape)
    return [
        tf.reshape(tf.range(length), [-1] + [1] * (rank - 1 - axis))
        for axis, length in enumerate(shape)
    ]


def standard_normal(seed: tf.Tensor, shape: Sequence[Length]) -> tf.Tensor:
    """Draws from the standard normal distribution (Box and Muller 1958).

    Args:
        seed: Integer tensor of shape `(2,)`.
        shape: shape of the draws. Those with the same coordinates are the
            same in any shape that holds them.

    Returns:
        float32 tensor of that shape.
    """
    coordinates = grid(shape)
    first, second = (
        uniform(seed, tf.constant(which), *coordinates) for which in (0, 1)
    )
    radius = tf.sqrt(-2.0 * tf.math.log(first))
    return radius * tf.cos(2.0 * math.pi * second)


def seed_values(seed: tf.Tensor) -> list[int] | None:
    """The integers of a seed, or None while a graph is traced.

    Args:
        seed: Integer tensor or variable.
    """
    seed = tf.convert_to_tensor(seed)
    return None if tf.is_symbolic_tensor(seed) else seed.numpy().tolist()


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
