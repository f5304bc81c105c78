"""Models that train on an engine and on TensorFlow, and what both make."""

import keras
import numpy as np

from keras_reformer.layers import LSHSelfAttention
from keras_reformer.models import Model

ROWS, LENGTH, IDS = 5, 24, 7


def functional_model(dtype=None, dropout=0.0, **options):
    """Returns a plain Functional model around one of the layers."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(IDS, 8, dtype=dtype)(inputs)
    sizes = {"num_heads": 2, "key_dim": 4, "chunk_length": 8, "num_hashes": 2}
    x = LSHSelfAttention(**sizes, dtype=dtype, **options)(x)
    x = keras.layers.Dropout(dropout, dtype=dtype)(x)
    outputs = keras.layers.Dense(
        3, dtype="float32", kernel_regularizer=keras.regularizers.L2(0.01)
    )(x[:, 0])
    return Model(inputs, outputs)


def penalize_outputs(layer):
    """Gives a layer an activity regularizer.

    Keras 3.13 does not divide what it adds by the rows of a batch, and the
    mean of the devices' sums is not the batch's.
    """
    probe = keras.layers.ActivityRegularization(l1=1.0)
    probe(np.ones((2, 1), "float32"))
    if probe.losses[0] == 1.0:
        layer.activity_regularizer = keras.regularizers.L2(0.01)


def dense_model(**options):
    """Returns a model that is compiled in no time."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    return Model(inputs, keras.layers.Dense(3, **options)(inputs))


def classes(rows=ROWS):
    """Returns token ids, labels and weights of rows."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, IDS, (rows, LENGTH)).astype("int32")
    weights = rng.uniform(size=rows).astype("float32")
    return ids, ids[:, 0] % 3, weights


def fit(make, data, engine, **options):
    """Results and all values after training.

    Args:
        make: function that returns a model and the arguments of `compile`.
        data: arguments of `fit`.
        engine: an engine, or None.
        **options: further ones of `fit`.
    """
    model, settings = make()
    if engine is not None:
        settings["engine"] = engine
    model.compile(**settings)
    options = {"verbose": 0, "shuffle": False, "batch_size": 4, **options}
    history = model.fit(*data, **options)
    return history.history, values(model)


def values(model):
    """Copies of the values of a model and of its optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def assert_same(found, expected, tolerance=1e-5):
    """Compares what `fit` returns here."""
    results, weights = found
    assert set(results) == set(expected[0])
    for name, value in expected[0].items():
        np.testing.assert_allclose(
            results[name], value, rtol=tolerance, err_msg=name
        )
    for a, b in zip(weights, expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)
