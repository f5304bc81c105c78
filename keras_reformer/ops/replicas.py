"""Replicas that train on parts of one batch, and what they sum.

TensorFlow's strategies have replicas, and so has an engine that traces a step
for a part of the batch: code that means the whole batch asks here.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf


class Part(NamedTuple):
    """A part of a batch that a step is traced for.

    Args:
        fraction: float. The part's rows by the batch's.
        sum: function of a tensor that does not depend on trained weights: its
            sum over all parts.
        seed_offset: integer tensor, what was added to the seeds of the
            model's generators to tell the part's draws from the others'.
    """

    fraction: float
    sum: Callable[[tf.Tensor], tf.Tensor]
    seed_offset: tf.Tensor


_part: contextvars.ContextVar[Part | None] = contextvars.ContextVar(
    "part", default=None
)


@contextlib.contextmanager
def tracing_part(part: Part | None) -> Iterator[None]:
    """What is traced here sees a part of the batch; None is all of it."""
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def fraction() -> float:
    """The share of a batch that is seen here, 1 where it is all of it."""
    part = _part.get()
    if part is not None:
        return part.fraction
    return 1.0 / tf.distribute.get_strategy().num_replicas_in_sync


def sum_over_replicas(x: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all that see a part of the batch.

    Args:
        x: Tensor that does not depend on trained weights.
    """
    part = _part.get()
    if part is not None:
        return part.sum(x)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    context = tf.distribute.get_replica_context()
    if replicas > 1 and context is not None:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, x)
    return x


def mean_over_replicas(
    old: tf.Tensor, new: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    """The mean of what replicas changed a value to, `old` without any weight.

    Args:
        old: Tensor, equal on all replicas.
        new: Tensor of the same shape, the replica's own.
        weight: Tensor that broadcasts to it, not negative.
    """
    change = sum_over_replicas((new - old) * weight)
    return old + tf.math.divide_no_nan(change, sum_over_replicas(weight))


def loss_for_keras(share: tf.Tensor) -> tf.Tensor:
    """What `compute_loss` returns where this is a replica's share.

    Keras adds up the losses of a strategy's replicas, and takes what it gets
    elsewhere for the loss of all it sees.
    """
    part = _part.get()
    return share if part is None else share / part.fraction


def common_seed(seed: tf.Tensor) -> tf.Tensor:
    """A generator's seed as all replicas have it.

    Args:
        seed: Integer tensor of shape `(2,)`, drawn from a generator.
    """
    part = _part.get()
    if part is None:
        return seed
    offset = tf.cast(part.seed_offset, seed.dtype)
    return seed - tf.stack([offset, tf.zeros_like(offset)])
