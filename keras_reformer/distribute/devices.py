"""Values on an engine's devices."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from keras_reformer.distribute.lowering import wide_integers

AXIS = "batch"


class State(NamedTuple):
    """Values of a model's variables, lists of arrays on all devices."""

    trainable: list
    others: list
    optimizer: list
    metrics: list


class Batch(NamedTuple):
    """A batch's parts: the devices' own, and what all compute."""

    own: Any
    rest: Any


def put_everywhere(mesh, values):
    """Arrays or variables, the same on every device."""
    return _put(mesh, PartitionSpec(), values)


def put_batch(mesh, batch):
    """A batch of arrays, in parts."""
    return Batch(_put(mesh, PartitionSpec(AXIS), batch), None)


def _put(mesh, spec, values):
    sharding = NamedSharding(mesh, spec)
    with wide_integers():
        return jax.tree.map(
            lambda x: jax.device_put(np.asarray(x), sharding), values
        )
