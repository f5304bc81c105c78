"""Optimization barriers: data dependencies that a scheduler must obey.

Control dependencies do not do: XLA drops them. Nor does its own barrier
(`XlaOptimizationBarrier`, which is no public op of TensorFlow's either): on a
CPU the compiler removes it before it fuses and schedules.
"""

import functools
from collections.abc import Sequence

import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.shapes import Length


def optimization_barrier(
    tensors: Sequence[tf.Tensor], others: Sequence[tf.Tensor] = ()
) -> list[tf.Tensor]:
    """The identity: computed once, and not before the others.

    Two things that XLA does with sums undo what reversible blocks save, and
    the loop, of one step, stops both. A stream is a sum of all branches'
    outputs: fused into whatever reads the stream, it keeps all outputs alive
    and is added up again for every reader. And reconstructing inputs needs no
    gradients of the blocks above: a scheduler may reconstruct those of all
    blocks first and keep what their gradients need alive at once.
    """
    identity = custom_vjp(_forward, _backward, first_order=False)
    return identity(list(tensors), list(others))


def _forward(tensors, others) -> tuple:
    if tf.executing_eagerly():  # There is nothing to schedule.
        return tensors, None
    # Without a number that is known at run time alone, XLA unrolls the loop.
    steps = tf.cast(~_always(others or tensors[:1]), tf.int32)
    inputs = [steps, *tensors]
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in inputs]
    condition, body = _loop_functions(*specs)
    _, *outputs = tf.raw_ops.StatelessWhile(
        input=inputs,
        cond=condition,
        body=body,
        output_shapes=[spec.shape for spec in specs],
    )
    return outputs, None


# Kept, since a block has several barriers of the same shapes, and tracing them
# with `tf.while_loop` took a third of what tracing a block took.
@functools.lru_cache(maxsize=256)
def _loop_functions(*specs: tf.TensorSpec) -> tuple:
    """The condition and the body of a barrier's loop."""
    condition = tf.function(lambda step, *xs: step < 1, autograph=False)
    body = tf.function(
        lambda step, *xs: (
            step + 1,
            *(x + tf.cast(step, x.dtype) for x in xs),
        ),
        autograph=False,
    )
    # In a graph of its own: functions keep what collections of the graph
    # around them hold, here gradients of the model that is being traced.
    with tf.Graph().as_default():
        return tuple(
            function.get_concrete_function(*specs)
            for function in (condition, body)
        )


def _backward(residuals, *d_outputs) -> tuple:
    return d_outputs, None


def zero_after(other: tf.Tensor) -> tf.Tensor:
    """An integer zero that is computed after another tensor.

    Adding it changes nothing and creates a data dependency.
    """
    (zero,) = optimization_barrier([tf.constant(0)], [other])
    return zero


def zeros_after(
    other: tf.Tensor, shape: Sequence[Length], dtype: tf.DType
) -> tf.Tensor:
    """Zeros that are computed after another tensor.

    A loop's initial values depend on nothing, so XLA fills those of the loops
    of all blocks before the first block runs, and memory grows with depth.
    """
    return tf.broadcast_to(tf.cast(~_always((other,)), dtype), shape)


def _always(others: Sequence[tf.Tensor]) -> tf.Tensor:
    """True, computed after the others.

    A number whose sign bit is cleared is not negative; XLA sees as much of
    the `abs` of a float, but not of its bits.
    """
    firsts = [tf.reshape(other, [-1])[:1] for other in others]
    numbers = tf.concat([tf.cast(x, tf.float32) for x in firsts], axis=0)
    positive = tf.bitwise.bitwise_and(tf.bitcast(numbers, tf.int32), 2**31 - 1)
    return tf.reduce_all(positive >= 0)
