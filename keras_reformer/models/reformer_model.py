"""The base of all models here."""

import keras

from keras_reformer.layers.rematerialization import RefusesRematerialization
from keras_reformer.models.engines import RunsOnEngine
from keras_reformer.models.feeding import ChecksData
from keras_reformer.models.inputs import TokenInputs
from keras_reformer.models.lora import HasLora
from keras_reformer.models.preset_methods import HasPresets
from keras_reformer.models.quantization import Quantizes
from keras_reformer.models.retracing import RetracesSteps
from keras_reformer.models.workers import TrainsOnWorkers


class ReformerModel(
    HasPresets,
    HasLora,
    Quantizes,
    RefusesRematerialization,
    RetracesSteps,
    TokenInputs,
    ChecksData,
    TrainsOnWorkers,
    RunsOnEngine,
    keras.Model,
):
    """A Functional model of token ids, whose traces follow its settings."""
