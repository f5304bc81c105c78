import keras

from keras_reformer.models.engines import RunsOnEngine
from keras_reformer.models.retracing import RetracesSteps
from keras_reformer.models.workers import TrainsOnWorkers


@keras.saving.register_keras_serializable(package="keras_reformer")
class Model(RetracesSteps, TrainsOnWorkers, RunsOnEngine, keras.Model):
    """A Functional model whose steps an engine can run.

    A `keras.Model` otherwise. To train a model that you have,
    `keras_reformer.Model(model.inputs, model.outputs)` shares its layers and
    weights.

    Args:
        inputs: symbolic inputs, as `keras.Model` takes them.
        outputs: symbolic outputs.
        name: string. Name of the model.

    Example:

    >>> inputs = keras.Input((64, 32))
    >>> x = keras_reformer.LSHSelfAttention(num_heads=2, key_dim=16)(inputs)
    >>> outputs = keras.layers.Dense(1)(x[:, 0])
    >>> model = keras_reformer.Model(inputs, outputs)
    >>> model.compile("adam", "mse")
    """
