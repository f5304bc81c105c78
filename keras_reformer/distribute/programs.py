"""jax's programs: a step on all devices, of a batch in parts.

Rows that divide among the devices are the devices' own parts. What is left of
an odd batch, fewer rows than devices, is a part that every device computes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from keras_reformer.distribute.compiling import compiler_options
from keras_reformer.distribute.devices import AXIS, Batch
from keras_reformer.distribute.lowering import lower, shape_of, wide_integers
from keras_reformer.distribute.steps import Rows

# What parts add to seeds is a multiple of this odd number.
_SEED_STEP = 0x9E3779B1

# Less than any sum of weights.
_TINY = jnp.finfo(jnp.float32).tiny

_EVERYWHERE, _BY_ROWS = PartitionSpec(), PartitionSpec(AXIS)


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

        return self._compiled(step)

    def test(self, state, batch):
        """Compiles `(state, batch) -> logs, state` that trains nothing."""
        shapes = jax.tree.map(shape_of, state)
        parts, _ = self._parts(shapes, batch, training=False)
        results, _ = self._lower(self._steps.results, shapes.metrics)

        def step(state, batch):
            _, state = self._run(parts, state, batch)
            return results(state.metrics), state

        return self._compiled(step)

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
            outputs, changed = predict(state.trainable, state.others, batch.own)
            # Inference draws nothing that a part would draw apart.
            others = list(state.others)
            changes = zip(self._steps.changed, changed, strict=True)
            for index, (value, *_) in changes:
                others[index] = value
            return outputs, state._replace(others=others)

        return self._compiled(step, outputs=_BY_ROWS)

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
            part, shape = self._part(shapes, shape, fraction, training)
            parts.append(part._replace(is_own=is_own))
            gradients.append((shape, self._count if is_own else 1))
        return parts, _joined(gradients)

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
        """Gradients of a batch (or none), and the state after it."""
        batches = [batch.own if part.is_own else batch.rest for part in parts]
        offsets = [self._offset(part) for part in parts]
        metrics = state.metrics
        if parts[0].fraction < 1:
            metrics = [jnp.zeros_like(x) for x in metrics]
        inputs = [
            (state.trainable, self._shifted(state.others, offset), metrics, x)
            for offset, x in zip(offsets, batches, strict=True)
        ]
        totals = self._sum(
            parts,
            [
                [] if part.totals is None else part.totals(*values, offset)
                for part, values, offset in zip(
                    parts, inputs, offsets, strict=True
                )
            ],
        )
        found = [
            part.run(*values, totals, offset)
            for part, values, offset in zip(parts, inputs, offsets, strict=True)
        ]
        *gradients, changed, metrics = zip(*found, strict=True)
        gradients = self._sum(parts, *gradients) if gradients else []
        metrics = self._sum(parts, metrics)
        if parts[0].fraction < 1:
            metrics = jax.tree.map(jnp.add, state.metrics, metrics)
        others = self._others(parts, state.others, changed, offsets)
        return gradients, state._replace(others=others, metrics=metrics)

    def _offset(self, part):
        """What is added to a part's seeds, nothing for the first."""
        if not part.is_own:
            number = self._count if part.fraction < 1 else 0
            return jnp.asarray(number * _SEED_STEP, jnp.int64)
        if self._count == 1:
            return jnp.zeros((), jnp.int64)
        return jax.lax.axis_index(AXIS).astype(jnp.int64) * _SEED_STEP

    def _shifted(self, others, offset):
        others = list(others)
        for index in self._seeds:
            others[index] = (
                others[index].at[0].add(offset.astype(others[index].dtype))
            )
        return others

    def _sum(self, parts, values):
        """The sum of the parts' structures of values, `steps.Rows` joined."""
        if len(parts) == 1 and parts[0].fraction == 1:
            return values[0]
        values = [
            self._over_devices(value) if part.is_own else value
            for part, value in zip(parts, values, strict=True)
        ]
        return jax.tree.map(
            lambda *each: (
                Rows(*map(jnp.concatenate, zip(*each, strict=True)))
                if isinstance(each[0], Rows)
                else sum(each[1:], each[0])
            ),
            *values,
            is_leaf=lambda x: isinstance(x, Rows),
        )

    def _over_devices(self, values):
        def join(x):
            if isinstance(x, Rows):
                return Rows(
                    *(jax.lax.all_gather(y, AXIS, tiled=True) for y in x)
                )
            return jax.lax.psum(x, AXIS)

        return jax.tree.map(join, values, is_leaf=lambda x: isinstance(x, Rows))

    def _others(self, parts, others, changed, offsets):
        """The other variables after a step: means of the parts'.

        By weights that a step returns beside them, or else by the parts'
        rows. Seeds and counters are equal in all parts but for their offsets.
        """
        others = list(others)
        for index, *changes in zip(self._steps.changed, *changed, strict=True):
            values, *weights = zip(*changes, strict=True)
            if weights:
                old = others[index]
                others[index] = self._mean(parts, old, values, *weights)
            elif jnp.issubdtype(values[0].dtype, jnp.floating):
                weighted = [
                    (value * part.fraction).astype(value.dtype)
                    for part, value in zip(parts, values, strict=True)
                ]
                others[index] = self._sum(parts, weighted)
            elif index in self._seeds:
                offset = offsets[0].astype(values[0].dtype)
                others[index] = values[0].at[0].add(-offset)
            else:
                others[index] = values[0]
        return others

    def _mean(self, parts, old, values, weights):
        """The weighted mean of the parts' values, `old` without any weight."""
        pairs = zip(values, weights, strict=True)
        change = self._sum(parts, [(x - old) * weight for x, weight in pairs])
        total = self._sum(parts, list(weights))
        return old + jnp.where(total > 0, change / jnp.maximum(total, _TINY), 0)

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

    def _compiled(self, step, outputs=_EVERYWHERE):
        if self._count > 1:
            step = jax.shard_map(
                step,
                mesh=self._engine.mesh,
                in_specs=(
                    _EVERYWHERE,
                    Batch(_BY_ROWS, _EVERYWHERE),
                ),
                out_specs=(outputs, _EVERYWHERE),
                check_vma=False,
            )
        compiled = jax.jit(
            step,
            donate_argnums=0,
            compiler_options=compiler_options(self._engine.platform),
        )

        def run(state, batch):
            with wide_integers():
                return compiled(state, batch)

        return run


def num_rows(batch):
    """Rows of a batch of arrays or shapes, 0 for None."""
    leaves = jax.tree.leaves(batch)
    return leaves[0].shape[0] if leaves else 0


def _joined(gradients):
    """Shapes of the sum of gradients, each on a number of devices."""
    shapes, counts = zip(*gradients, strict=True)

    def join(*each):
        if not isinstance(each[0], Rows):
            return each[0]
        rows = sum(
            x.indices.shape[0] * count
            for x, count in zip(each, counts, strict=True)
        )
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype),
            each[0],
        )

    return jax.tree.map(join, *shapes, is_leaf=lambda x: isinstance(x, Rows))
