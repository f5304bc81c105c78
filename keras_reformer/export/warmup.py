"""Warm-up requests, which TensorFlow Serving runs when it loads a model.

The file is a TFRecord of `tensorflow.serving.PredictionLog`. The few nested
messages are encoded here, so that exporting does not need the package of
their definitions.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from keras_reformer.files import reading

_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
# Field numbers of tensorflow_serving/apis.
_LOG_PREDICT = 6  # PredictionLog.predict_log
_PREDICT_REQUEST = 1  # PredictLog.request
_REQUEST_MODEL, _REQUEST_INPUTS = 1, 2  # PredictRequest.model_spec, .inputs
_MODEL_NAME, _MODEL_SIGNATURE = 1, 3  # ModelSpec.name, .signature_name
_KEY, _VALUE = 1, 2  # an entry of a map
_BYTES = 2  # the wire type of strings and messages

Request = tuple[str, dict[str, np.ndarray]]


def write(folder: str, model_name: str, requests: Iterable[Request]) -> None:
    """Writes the warm-up requests of a SavedModel.

    Args:
        folder: str. The SavedModel.
        model_name: str. The name under which it is served.
        requests: pairs of a signature's name and its inputs.
    """
    path = os.path.join(folder, _FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as file:
        for signature, inputs in requests:
            request = _request(model_name, signature, inputs)
            log = _field(_PREDICT_REQUEST, request)
            file.write(_field(_LOG_PREDICT, log))


def read(folder: str) -> list[Request]:
    """Reads what `write` wrote.

    Args:
        folder: str. The SavedModel.

    Returns:
        list of pairs of a signature's name and its inputs; empty if there is
        no such file.

    Raises:
        ValueError: if the file is damaged.
    """
    path = os.path.join(folder, _FILE)
    if not os.path.exists(path):
        return []
    with reading(path, "records of warm-up requests"):
        records = tf.data.TFRecordDataset([path]).as_numpy_iterator()
        return [_parse(record) for record in records]


def _request(model_name, signature, inputs) -> bytes:
    model = _field(_MODEL_NAME, model_name.encode())
    model += _field(_MODEL_SIGNATURE, signature.encode())
    message = _field(_REQUEST_MODEL, model)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_KEY, name.encode()) + _field(_VALUE, tensor)
        message += _field(_REQUEST_INPUTS, entry)
    return message


def _parse(record) -> Request:
    log = dict(_fields(record))[_LOG_PREDICT]
    request = list(_fields(dict(_fields(log))[_PREDICT_REQUEST]))
    model = dict(_fields(dict(request)[_REQUEST_MODEL]))
    entries = [
        dict(_fields(value))
        for number, value in request
        if number == _REQUEST_INPUTS
    ]
    proto = tensor_pb2.TensorProto.FromString
    return model[_MODEL_SIGNATURE].decode(), {
        entry[_KEY].decode(): tf.make_ndarray(proto(entry[_VALUE]))
        for entry in entries
    }


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the least first; the top bit says that more come."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(message):
        tag, start = _read_varint(message, start)
        size, start = _read_varint(message, start)
        yield tag >> 3, message[start : start + size]
        start += size


def _read_varint(message: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[start]
        value |= (byte & 0x7F) << shift
        start, shift = start + 1, shift + 7
        if byte < 0x80:
            return value, start
