"""Values on an engine's devices."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from keras_reformer.distribute.lowering import wide_integers
from keras_reformer.models.rendezvous import lines_while_waiting

AXIS = "batch"
_FIRST = (
    "the first process's weights. All processes must call the same methods "
    "of a model, in the same order."
)


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
    """Arrays or variables, the first process's on every device."""
    if mesh.is_multi_process:
        with wide_integers(), lines_while_waiting(_FIRST):
            values = multihost_utils.broadcast_one_to_all(
                jax.tree.map(np.asarray, values)
            )
    return _put(mesh, PartitionSpec(), values)


def put_batch(mesh, batch):
    """A batch of arrays, in parts.

    Args:
        mesh: `jax.sharding.Mesh`.
        batch: structure of arrays with as many rows each.

    Raises:
        ValueError: if rows of several processes do not divide among devices.
    """
    count = len(mesh.local_devices)
    num_rows = jax.tree.leaves(batch)[0].shape[0]
    own = num_rows - num_rows % count
    if own < num_rows and mesh.is_multi_process:
        raise ValueError(
            "With several processes, each one's rows of a batch must divide "
            "among its devices. Drop what is left at an epoch's end, with "
            "`dataset.batch(size, drop_remainder=True)`. Received: "
            f"{num_rows} rows for {count} devices"
        )

    def part(start, stop):
        if start == stop:
            return None
        return jax.tree.map(lambda x: x[start:stop], batch)

    return Batch(
        _put(mesh, PartitionSpec(AXIS), part(0, own)),
        _put(mesh, PartitionSpec(), part(own, num_rows)),
    )


def local_rows(array):
    """The rows of an array in parts that this process's devices have."""
    shards = sorted(
        array.addressable_shards, key=lambda shard: shard.index[0].start or 0
    )
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _put(mesh, spec, values):
    """Each process gives its own rows of arrays that are in parts."""
    sharding = NamedSharding(mesh, spec)

    def put(x):
        x = np.asarray(x)
        if mesh.is_multi_process:
            return jax.make_array_from_process_local_data(sharding, x)
        return jax.device_put(x, sharding)

    with wide_integers():
        return jax.tree.map(put, values)
