"""Dependencies of data, which order what a scheduler would do too early."""

from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_gradient
from keras_reformer.ops.loops.shapes import Length


def optimization_barrier(
    tensors: Sequence[tf.Tensor], others: Sequence[tf.Tensor] = ()
) -> list[tf.Tensor]:
    """Tensors as they are, computed once, and not before the others.

    Two things that XLA does with sums undo what reversible blocks save, and
    the loop, of one turn, stops both. A stream is a sum of all branches'
    outputs: fused into whatever reads the stream, it keeps all outputs alive
    and is added up again for every reader. And rebuilding needs no gradients
    of the blocks above: a scheduler may rebuild all blocks first and keep
    what their gradients need alive at once.
    """

    @custom_gradient
    def identity(*tensors):
        _, *settled = tf.while_loop(
            lambda turn, *xs: turn < 1,
            lambda turn, *xs: (
                turn + 1,
                *(x + tf.cast(turn, x.dtype) for x in xs),
            ),
            (tf.cast(~_always((*tensors, *others)), tf.int32), *tensors),
        )
        return settled, lambda *upstream: upstream

    return identity(*tensors)


def zero_after(other: tf.Tensor) -> tf.Tensor:
    """An integer zero that is not there before another tensor is.

    What it is added to stays the same, and waits.
    """
    (zero,) = optimization_barrier([tf.constant(0)], [other])
    return zero


def zeros_after(
    other: tf.Tensor, shape: Sequence[Length], dtype: tf.DType
) -> tf.Tensor:
    """Zeros that are not there before another tensor is.

    What a loop begins with needs nothing, so XLA fills it for the loops of
    all blocks before the first block runs, and memory grows with depth.
    """
    return tf.broadcast_to(tf.cast(~_always((other,)), dtype), shape)


def _always(others: Sequence[tf.Tensor]) -> tf.Tensor:
    """True, which is not there before the others are.

    A number whose sign bit is cleared is not negative; XLA sees as much of
    the `abs` of a float, but not of its bits.
    """
    never = tf.constant(False)
    for other in others:
        first = tf.reduce_sum(tf.reshape(other, [-1])[:1])
        bits = tf.bitcast(tf.cast(first, tf.float32), tf.int32)
        never |= tf.bitwise.bitwise_and(bits, 2**31 - 1) < 0
    return ~never
