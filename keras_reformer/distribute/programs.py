"""jax's programs: a step on all devices, of a batch in parts.

Rows that divide among the devices are the devices' own parts. What is left of
an odd batch, fewer rows than devices, is a part that every device computes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from keras_reformer.distribute.devices import AXIS, Batch
from keras_reformer.distribute.lowering import lower, shape_of, wide_integers

# What parts add to seeds is a multiple of this odd number.
_SEED_STEP = 0x9E3779B1


class _Program(NamedTuple):
    """A part's step."""

    totals: Any
    run: Any
    fraction: float
    is_own: bool


class Programs:
    """Makes the programs of a model's steps.

    Args:
        steps: `Steps`.
        engine: `JaxEngine`.
        seeds: indices of seed generators among the other variables.
    """

    def __init__(self, steps, engine, seeds):
        self._steps = steps
        self._engine = engine
        self._seeds = seeds
        self._count = engine.num_devices

    def train(self, state, batch):
        """Compiles `(state, batch) -> logs, state` for such values."""
        shapes = jax.tree.map(shape_of, state)
        parts, gradients = self._parts(shapes, batch, training=True)
        update, _ = self._lower(
            self._steps.update, shapes.trainable, shapes.optimizer, gradients
        )
        results, _ = self._lower(self._steps.results, shapes.metrics)

        def step(state, batch):
            gradients, state = self._run(parts, state, batch)
            trainable, optimizer = update(
                state.trainable, state.optimizer, gradients
            )
            state = state._replace(trainable=trainable, optimizer=optimizer)
            return results(state.metrics), state

        return self._compiled(step, donate=True)

    def test(self, state, batch):
        """Compiles `(state, batch) -> logs, state` that trains nothing."""
        shapes = jax.tree.map(shape_of, state)
        parts, _ = self._parts(shapes, batch, training=False)
        results, _ = self._lower(self._steps.results, shapes.metrics)

        def step(state, batch):
            _, state = self._run(parts, state, batch)
            return results(state.metrics), state

        return self._compiled(step, donate=True)

    def predict(self, state, batch):
        """Compiles `(state, batch) -> outputs, state`; rows must divide."""
        shapes = jax.tree.map(shape_of, state)
        predict, _ = self._lower(
            self._steps.predict,
            shapes.trainable,
            shapes.others,
            self._own_shapes(batch.own),
        )

        def step(state, batch):
            outputs, changed = predict(
                state.trainable, state.others, batch.own
            )
            others = list(state.others)
            for index, value in zip(self._steps.changed, changed, strict=True):
                others[index] = value
            return outputs, state._replace(others=others)

        return self._compiled(step, donate=True, outputs=PartitionSpec(AXIS))

    # === Parts ===

    def _parts(self, shapes, batch, training):
        """The programs of the parts, and shapes of gradients."""
        own, rest = self._own_shapes(batch.own), batch.rest
        rest = jax.tree.map(shape_of, rest)
        rows = num_rows(batch.own) + num_rows(rest)
        parts, gradients = [], []
        for shape, is_own in ((own, True), (rest, False)):
            if shape is None:
                continue
            fraction = num_rows(shape) / rows
            part, gradients = self._part(shapes, shape, fraction, training)
            parts.append(part._replace(is_own=is_own))
        return parts, gradients

    def _part(self, shapes, batch, fraction, training):
        state = shapes.trainable, shapes.others, shapes.metrics
        offset = jax.ShapeDtypeStruct((), jnp.int64)
        totals, asked = None, []
        if fraction < 1:
            totals, asked = self._lower(
                self._steps.totals(fraction, training), *state, batch, offset
            )
        if training:
            step = self._steps.gradients(fraction)
        else:
            step = self._steps.test(fraction)
        run, results = self._lower(step, *state, batch, asked, offset)
        gradients = results[0] if training else []
        return _Program(totals, run, fraction, True), gradients

    def _run(self, parts, state, batch):
        """Gradients (or an empty list) of a batch, and the state after it."""
        if len(parts) == 1 and parts[0].fraction == 1:
            batch = batch.own if parts[0].is_own else batch.rest
            offset = jnp.zeros((), jnp.int64)
            values = state.trainable, state.others, state.metrics
            *found, changed, metrics = parts[0].run(*values, batch, [], offset)
            others = self._others(state.others, [(1, changed, offset)])
            gradients = found[0] if found else []
            return gradients, state._replace(others=others, metrics=metrics)
        raise NotImplementedError

    def _others(self, others, found):
        others = list(others)
        [(_, changed, _)] = found
        for index, value in zip(self._steps.changed, changed, strict=True):
            others[index] = value
        return others

    # === Devices ===

    def _own_shapes(self, batch):
        """Shapes of one device's rows of a batch."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (x.shape[0] // self._count, *x.shape[1:]), x.dtype
            ),
            batch,
        )

    def _lower(self, function, *arguments):
        return lower(function, arguments, self._engine.platform)

    def _compiled(self, step, donate, outputs=PartitionSpec()):
        if self._count > 1:
            step = jax.shard_map(
                step,
                mesh=self._engine.mesh,
                in_specs=(
                    PartitionSpec(),
                    Batch(PartitionSpec(AXIS), PartitionSpec()),
                ),
                out_specs=(outputs, PartitionSpec()),
                check_vma=False,
            )
        compiled = jax.jit(step, donate_argnums=0 if donate else ())

        def run(state, batch):
            with wide_integers():
                return compiled(state, batch)

        return run


def num_rows(batch):
    """Rows of a batch of arrays or shapes, 0 for None."""
    leaves = jax.tree.leaves(batch)
    return leaves[0].shape[0] if leaves else 0
