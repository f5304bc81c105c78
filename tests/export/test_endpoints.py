import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import models
from keras_reformer.export import endpoints
from tests.support.tiny_exports import (
    IDS,
    LENGTHS,
    MASK,
    ONE_BLOCK,
    SIZES,
    causal_lm,
    classifier,
    masked_lm,
)

INPUTS = {"token_ids": IDS, "lengths": LENGTHS, "labels": IDS[:, ::-1]}
MODELS = {
    "causal_lm": causal_lm,
    "masked_lm": masked_lm,
    "classifier": classifier,
    "question_answering": lambda: models.ReformerQuestionAnswering(**SIZES),
    "backbone": lambda: models.ReformerBackbone(**SIZES),
}
OUTPUTS = {
    "question_answering": {"start", "end"},
    "backbone": {"hidden_states"},
}


def ask(model, name, buckets=(), trace=True):
    """Asks an endpoint, traced with all that is around it, or as it is."""
    found = {e.name: e for e in endpoints.endpoints(model)}[name]
    tensors = {key: tf.constant(INPUTS[key]) for key in found.specs}
    if trace:
        limits = endpoints.limits_of(model)
        function = endpoints.serving_function(found, limits, buckets)
        answer = function(*tensors.values())
    else:
        answer = found.function(tensors)
    return {key: x.numpy() for key, x in answer.items()}


def outputs(model, inputs):
    answer = model(inputs)
    return answer if isinstance(answer, dict) else {None: answer}


def assert_equal(received, expected):
    for x, y in zip(received.values(), expected.values(), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow)
        if kind in ("masked_lm", "question_answering")
        else kind
        for kind in MODELS
    ],
)
def test_outputs_of_every_model(kind):
    model = MODELS[kind]()
    received = ask(model, "serve", trace=False)
    assert set(received) == OUTPUTS.get(kind, {"logits"})
    assert_equal(received, outputs(model, IDS))
    masked = outputs(model, {"token_ids": IDS, "padding_mask": MASK})
    assert_equal(ask(model, "serve_padded", trace=False), masked)


@pytest.mark.parametrize("kind", ["causal_lm", "classifier"])
def test_a_bucket_changes_nothing(kind):
    model = MODELS[kind](**ONE_BLOCK)
    expected = outputs(model, IDS)
    assert_equal(ask(model, "serve", buckets=(16, 50)), expected)


@pytest.mark.parametrize("buckets", [(), (16, 50)])
def test_score_of_a_causal_model(buckets):
    model = causal_lm(**ONE_BLOCK)
    received = ask(model, "score", buckets)
    log_p = tf.nn.log_softmax(model(IDS)).numpy()
    for row, length in enumerate(LENGTHS):
        expected = sum(
            log_p[row, place, IDS[row, place + 1]]
            for place in range(length - 1)
        )
        assert received["log_likelihood"][row] == pytest.approx(expected, 1e-5)
    np.testing.assert_array_equal(received["num_tokens"], LENGTHS - 1)


def test_score_of_a_masked_model(monkeypatch):
    labels = np.where(IDS % 3 == 0, IDS, -1)
    monkeypatch.setitem(INPUTS, "labels", labels)
    model = masked_lm(**ONE_BLOCK)
    received = ask(model, "score", buckets=(50,))
    logits = model({"token_ids": IDS, "padding_mask": MASK})
    nats = keras.ops.sparse_categorical_crossentropy(
        np.maximum(labels, 0), logits, from_logits=True
    )
    scored = (labels >= 0) & MASK
    np.testing.assert_allclose(
        received["log_likelihood"], -np.sum(nats * scored, axis=1), rtol=1e-5
    )
    np.testing.assert_array_equal(received["num_tokens"], scored.sum(axis=1))


def wide_tensors(model, name):
    """Tensors of a traced endpoint, loops aside, as wide as the vocabulary."""
    found = {e.name: e for e in endpoints.endpoints(model)}
    function = endpoints.serving_function(found[name], endpoints.Limits())
    graph = function.get_concrete_function().graph
    width = model.backbone.vocabulary_size
    return [
        tensor
        for operation in graph.get_operations()
        for tensor in operation.outputs
        if tensor.shape.rank == 3 and tensor.shape[-1] == width
    ]


def test_score_makes_no_logits_of_a_whole_sequence():
    model = causal_lm(vocabulary_size=1009, num_layers=1)
    assert wide_tensors(model, "serve")
    assert not wide_tensors(model, "score")


def test_names_of_endpoints():
    def names(model, **options):
        return [e.name for e in endpoints.endpoints(model, **options)]

    assert names(causal_lm()) == ["serve", "serve_padded", "score", "generate"]
    assert names(classifier()) == ["serve", "serve_padded"]
    assert names(classifier(), trainable=True)[2:] == ["train"]
    other = keras.Sequential([keras.layers.Embedding(3, 2)])
    assert names(other) == ["serve"]


@pytest.mark.parametrize("kind", ["causal_lm", "masked_lm"])
def test_examples_are_good_requests(kind):
    model = MODELS[kind]()
    limits = endpoints.limits_of(model)
    for endpoint in endpoints.endpoints(model):
        request = endpoints.example(endpoint, limits, 3, 20)
        assert set(request) == set(endpoint.specs)
        assert request["token_ids"].shape == (3, 20)
        assert len(np.unique(request["token_ids"])) > 5
        again = endpoints.example(endpoint, limits, 3, 20)
        np.testing.assert_array_equal(request["token_ids"], again["token_ids"])
