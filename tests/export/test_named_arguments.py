"""Endpoints of a loaded export, called by name as by place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import warmup
from tests.support.tiny_exports import IDS, LENGTHS

# The order of each endpoint's arguments.
ENDPOINTS = {
    "serve": ["token_ids"],
    "serve_padded": ["token_ids", "lengths"],
    "score": ["token_ids", "lengths"],
    "generate": ["token_ids", "lengths", "max_length", "seed", "temperature"],
}


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported)


@pytest.fixture(scope="module")
def requests(exported):
    return dict(warmup.read(exported))


def assert_same(answer, expected):
    assert set(answer) == set(expected)
    for name, x in answer.items():
        np.testing.assert_array_equal(x, expected[name])


@pytest.mark.parametrize("name", ENDPOINTS)
def test_by_name_and_by_place(loaded, requests, name):
    request = requests[name]
    values = [request[key] for key in ENDPOINTS[name]]
    tensors = {key: tf.constant(x) for key, x in request.items()}
    expected = loaded.signatures[name](**tensors)
    endpoint = getattr(loaded, name)
    assert_same(endpoint(**request), expected)
    assert_same(endpoint(*values), expected)
    rest = dict(zip(ENDPOINTS[name][1:], values[1:], strict=True))
    assert_same(endpoint(values[0], **rest), expected)


def test_a_layer_of_keras(exported, loaded):
    layer = keras.layers.TFSMLayer(exported, call_endpoint="score")
    expected = loaded.score(IDS, LENGTHS)
    assert_same(layer(IDS, lengths=LENGTHS), expected)
    token_ids = keras.Input((None,), dtype="int32")
    lengths = keras.Input((), dtype="int32")
    scores = layer(token_ids, lengths=lengths)
    model = keras.Model([token_ids, lengths], scores)
    assert_same(model([IDS, LENGTHS]), expected)


@pytest.mark.slow
def test_a_layer_of_keras_casts_by_its_policy(exported, loaded, requests):
    request = dict(requests["generate"])
    expected = loaded.generate(**request)
    token_ids = request.pop("token_ids")
    keras.config.set_dtype_policy("mixed_bfloat16")
    options = {"call_endpoint": "generate"}
    layer = keras.layers.TFSMLayer(exported, **options, dtype="float32")
    assert_same(layer(token_ids, **request), expected)
    layer = keras.layers.TFSMLayer(exported, **options)
    with pytest.raises(TypeError, match="bfloat16"):
        layer(token_ids, **request)


def test_an_argument_that_is_left_out_is_named(loaded):
    with pytest.raises(TypeError, match="missing.*'lengths'"):
        loaded.score(IDS)
