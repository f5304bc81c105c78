"""Keras's optimizers as functions equal Keras's optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers

from keras_reformer.distribute.optimizers import FunctionalOptimizer

SCHEDULE = optimizers.schedules.PolynomialDecay(0.1, 5)
AVERAGED = {"use_ema": True, "ema_momentum": 0.5}
CASES = {
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adamw, clipped": lambda: optimizers.AdamW(SCHEDULE, clipnorm=0.1),
    "adam, clipped": lambda: optimizers.Adam(
        0.1, global_clipnorm=0.1, amsgrad=True
    ),
    "averages": lambda: optimizers.SGD(
        0.1, **AVERAGED, ema_overwrite_frequency=2
    ),
    "accumulation": lambda: optimizers.AdamW(
        SCHEDULE, gradient_accumulation_steps=3, clipvalue=0.1
    ),
    "accumulated averages": lambda: optimizers.Adam(
        0.1,
        gradient_accumulation_steps=2,
        **AVERAGED,
        ema_overwrite_frequency=2,
    ),
    "scaled": lambda: optimizers.SGD(0.1, loss_scale_factor=4.0),
    "accumulated nadam": lambda: optimizers.Nadam(
        0.1, gradient_accumulation_steps=2
    ),
    "adadelta": lambda: optimizers.Adadelta(0.1),
    "adafactor": lambda: optimizers.Adafactor(0.1),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adamax": lambda: optimizers.Adamax(0.1),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lamb": lambda: optimizers.Lamb(0.1),
    "lion": lambda: optimizers.Lion(0.1),
    "muon": lambda: optimizers.Muon(0.1),
    "nadam": lambda: optimizers.Nadam(0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.1, centered=True, momentum=0.5),
}


# Keras's own take no rows.
DENSE = {"scaled", "muon"}


def variables():
    rng = np.random.default_rng(0)
    shapes = (5, 4), (4, 3), (3,), (2,)
    made = [
        keras.Variable(rng.normal(size=shape), dtype="float32")
        for shape in shapes
    ]
    made[1].constraint = keras.constraints.MaxNorm(1.0)
    return made


def gradients(seed, case):
    """Gradients, of which one has rows twice and one is missing."""
    rng = np.random.default_rng(seed)
    rows = tf.IndexedSlices(
        tf.constant(rng.normal(size=(3, 4)), tf.float32),
        tf.constant([1, 4, 1]),
        tf.constant([5, 4]),
    )
    dense = [
        tf.constant(rng.normal(size=shape), tf.float32)
        for shape in ((4, 3), (3,))
    ]
    if case in DENSE:
        rows = tf.convert_to_tensor(rows)
    return [rows, *dense, None]


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("case", CASES)
def test_equals_keras(case):
    expected, optimizer = variables(), CASES[case]()
    optimizer.build(expected)
    ours, template = variables(), CASES[case]()
    template.build(ours)
    functional = FunctionalOptimizer(template, ours)
    trainable = [tf.convert_to_tensor(v) for v in ours]
    state = [tf.convert_to_tensor(v) for v in template.variables]
    for step in range(5):
        optimizer.apply(gradients(step, case), expected)
        trainable, state = functional.apply(
            state, gradients(step, case), trainable
        )
    for value, variable in zip(
        [*trainable, *state], [*expected, *optimizer.variables], strict=True
    ):
        np.testing.assert_allclose(value, variable, atol=1e-6)
