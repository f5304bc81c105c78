"""Dependencies of data, which order what a scheduler would do too early."""

from collections.abc import Sequence

import tensorflow as tf


def zero_after(others: Sequence[tf.Tensor]) -> tf.Tensor:
    """An integer zero that is not there before the others are.

    What it is added to stays the same, and waits for them. Rebuilding does
    not need the gradients of the blocks above: without this a scheduler may
    rebuild all blocks first and keep what their gradients need alive at once,
    and memory would grow with depth again. A dependency of data holds in
    graphs and under XLA alike. The loop, of one
    turn, keeps XLA from computing the others' elements again for every
    element of a sum.
    """
    (one,) = tf.while_loop(
        lambda turn: turn < 1,
        lambda turn: (turn + 1,),
        (tf.cast(~_always(others), tf.int32),),
    )
    return one - 1


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
