"""Signatures of a SavedModel, read without loading it."""

import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_reformer.files import reading

# Prefix of entries that TensorFlow adds to the signatures.
_PRIVATE = "__"


class Signature(NamedTuple):
    """Names of inputs and outputs, mapped to names of tensors in the graph."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    dtypes: dict[str, np.dtype]


def read_signatures(path: str) -> dict[str, Signature]:
    """Reads the signatures of a SavedModel from its MetaGraphDef.

    Args:
        path: str. The folder of the SavedModel.

    Raises:
        ValueError: if there is no SavedModel, or it is damaged.
    """
    if not tf.saved_model.contains_saved_model(path):
        raise ValueError(
            "There is no SavedModel. Expected a folder that "
            f"`export_saved_model` returned. Received: {path!r}"
        )
    path = os.path.join(path, "saved_model.pb")
    model = saved_model_pb2.SavedModel()
    with reading(path, "a SavedModel's graph"), open(path, "rb") as file:
        model.ParseFromString(file.read())
        return {
            name: _signature(definition)
            for name, definition in model.meta_graphs[0].signature_def.items()
            if not name.startswith(_PRIVATE)
        }


def _signature(definition) -> Signature:
    return Signature(
        {key: info.name for key, info in definition.inputs.items()},
        {key: info.name for key, info in definition.outputs.items()},
        {
            key: np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
            for key, info in definition.inputs.items()
        },
    )
