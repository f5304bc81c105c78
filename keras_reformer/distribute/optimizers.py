"""Keras's optimizers as functions from values to values."""

import functools

import keras
import tensorflow as tf

# Keras's optimizers for TensorFlow replace these by ones that assign to
# TensorFlow's variables. Those of their base class assign to Keras's, whose
# values a `keras.StatelessScope` can hold. Seen in Keras 3.13 to 3.15.
_OF_ANY_BACKEND = (
    "assign",
    "assign_add",
    "assign_sub",
    "stateless_apply",
    "_apply_weight_decay",
    "_backend_update_step",
    "_var_key",
)
_ACCUMULATOR = "_gradient_accumulator"
_AVERAGE = "_average"


class FunctionalOptimizer:
    """The updates of a Keras optimizer, without its variables.

    Args:
        optimizer: `keras.optimizers.Optimizer`, built.
        variables: the model's trainable variables, which it was built for.
    """

    def __init__(self, optimizer, variables):
        self._optimizer = optimizer
        self._variables = variables
        self._accumulators = _named(optimizer, _ACCUMULATOR)
        self._averages = _named(optimizer, _AVERAGE)
        self._update = _functional(optimizer, variables)
        # Steps that only accumulate.
        self._wait = _functional(
            optimizer,
            variables,
            {"update_step": _no_step},
            weight_decay=None,
        )

    def apply(self, state, gradients, trainable):
        """New values of the trainable variables and of the optimizer's.

        Args:
            state: values of `optimizer.variables`.
            gradients: list of tensors, None where there is no gradient.
            trainable: values of the trainable variables.
        """
        if self._accumulators:
            updated = self._accumulate(state, gradients, trainable)
        else:
            updated = self._update.stateless_apply(state, gradients, trainable)
        return self._with_averages(state, gradients, *updated)

    def _accumulate(self, state, gradients, trainable):
        steps = self._optimizer.gradient_accumulation_steps
        pairs = zip(
            gradients, [state[i] for i in self._accumulators], strict=True
        )
        sums = [s if g is None else keras.ops.add(g, s) for g, s in pairs]
        means = [
            None if g is None else total / steps
            for g, total in zip(gradients, sums, strict=True)
        ]
        is_update = (state[0] + 1) % steps == 0
        waited, counted = self._wait.stateless_apply(
            state, gradients, trainable
        )
        waiting = list(state)
        for index in (0, *self._averages):
            waiting[index] = counted[index]
        chosen = keras.tree.map_structure(
            lambda new, old: tf.where(is_update, new, old),
            self._update.stateless_apply(state, means, trainable),
            (waited, waiting),
        )
        for index, total in zip(self._accumulators, sums, strict=True):
            chosen[1][index] = tf.where(is_update, tf.zeros_like(total), total)
        return chosen

    def _with_averages(self, state, gradients, trainable, updated):
        """What is left of `ema_overwrite_frequency`."""
        frequency = self._optimizer.ema_overwrite_frequency
        if not self._averages or not frequency:
            return trainable, updated
        steps = self._optimizer.gradient_accumulation_steps or 1
        overwrites = (state[0] // steps + 1) % frequency == 0
        averages = [updated[index] for index in self._averages]
        for index, (variable, gradient) in enumerate(
            zip(self._variables, gradients, strict=True)
        ):
            if gradient is not None and variable.constraint is not None:
                averages[index] = variable.constraint(averages[index])
        trainable = [
            tf.where(overwrites, average, value)
            for average, value in zip(averages, trainable, strict=True)
        ]
        return trainable, updated


def _named(optimizer, suffix):
    """Indices of an optimizer's variables, one for each of the model's."""
    if suffix == _AVERAGE and not optimizer.use_ema:
        return []
    return [
        index
        for index, variable in enumerate(optimizer.variables)
        if variable.name.endswith(suffix)
    ]


def _functional(optimizer, variables, methods=None, **settings):
    """A copy of the optimizer with `_OF_ANY_BACKEND`.

    It neither accumulates gradients nor overwrites weights: Keras does both
    in branches of a condition, from which a scope gets no values.
    """
    methods = dict(methods or {})
    steps = optimizer.gradient_accumulation_steps or 1
    if steps > 1:
        methods["iterations"] = property(
            lambda self: keras.ops.floor_divide(self.variables[0], steps)
        )
    # Methods of the optimizer's own class come before those of any backend.
    bases = type(optimizer), _of_any_backend()
    made = object.__new__(type("Functional", bases, methods))
    made.__dict__.update(
        {
            **vars(optimizer),
            "gradient_accumulation_steps": None,
            "ema_overwrite_frequency": None,
            "_trainable_variables_indices": {
                id(variable): index for index, variable in enumerate(variables)
            },
            **settings,
        }
    )
    return made


@functools.cache
def _of_any_backend():
    base = next(
        each
        for each in keras.optimizers.Optimizer.__mro__
        if each.__name__ == "BaseOptimizer"
    )
    methods = {name: getattr(base, name) for name in _OF_ANY_BACKEND}
    return type("OfAnyBackend", (keras.optimizers.Optimizer,), methods)


def _no_step(self, gradient, variable, learning_rate):
    """Leaves the variable as it is."""
