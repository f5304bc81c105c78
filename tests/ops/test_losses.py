import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops import losses
from keras_reformer.ops.losses import chunked_cross_entropy

BATCH, DIM, VOCABULARY, LENGTH = 2, 5, 7, 13


@pytest.fixture(params=[1, 3, 6, 13, 100])
def chunk_length(request, monkeypatch):
    """Positions whose logits are made at a time."""
    monkeypatch.setattr(losses, "_LOGITS_IN_STEP", request.param * VOCABULARY)
    return request.param


def make_case(dtype="float64", length=LENGTH):
    rng = np.random.default_rng(length)
    shapes = [(BATCH, length, DIM), (DIM, VOCABULARY), (VOCABULARY,)]
    tensors = [tf.constant(rng.normal(size=s), dtype) for s in shapes]
    labels = tf.constant(rng.integers(0, VOCABULARY, (BATCH, length)))
    return labels, tensors


def head(hidden, weights):
    kernel, bias = weights
    return hidden @ kernel + bias


def chunked(labels, hidden, *weights):
    return chunked_cross_entropy(head, hidden, weights, labels, VOCABULARY)


def plain(labels, hidden, *weights):
    logits = head(hidden, weights)
    log_p = tf.nn.log_softmax(logits)
    nats = -tf.gather(log_p, labels, axis=-1, batch_dims=2)
    correct = tf.argmax(logits, -1) == labels
    return nats, tf.cast(correct, logits.dtype)


def with_gradients(function, labels):
    """Both results, and gradients of unequally weighted positions."""

    def run(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            nats, correct = function(labels, *arguments)
            scale = tf.cast(tf.range(tf.size(nats)), nats.dtype)
            loss = tf.reduce_sum(nats * tf.reshape(scale, tf.shape(nats)))
        return nats, correct, *tape.gradient(loss, arguments)

    return run


def assert_close(ones, others, atol):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("dtype, atol", [("float64", 1e-12), ("float32", 1e-4)])
def test_values_and_gradients(chunk_length, execution, dtype, atol):
    labels, tensors = make_case(dtype)
    expected = with_gradients(plain, labels)(*tensors)
    results = execution(with_gradients(chunked, labels))(*tensors)
    assert_close(results, expected, atol)
    assert {result.dtype.name for result in results} == {dtype}


@pytest.mark.parametrize("jit", [False, True])
def test_shape_known_while_running_only(monkeypatch, jit):
    monkeypatch.setattr(losses, "_LOGITS_IN_STEP", 4 * VOCABULARY)

    def run(labels, *tensors):
        return with_gradients(chunked, labels)(*tensors)

    function = tf.function(
        run,
        jit_compile=jit,
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, None), tf.int64),
            tf.TensorSpec((None, None, DIM), tf.float64),
            tf.TensorSpec((DIM, VOCABULARY), tf.float64),
            tf.TensorSpec((VOCABULARY,), tf.float64),
        ],
    )
    for length in (1, 4, 7, 13):
        labels, tensors = make_case(length=length)
        expected = with_gradients(plain, labels)(*tensors)
        assert_close(function(labels, *tensors), expected, 1e-12)


def test_finite_differences(monkeypatch):
    monkeypatch.setattr(losses, "_LOGITS_IN_STEP", 4 * VOCABULARY)
    labels, tensors = make_case(length=6)
    exact, numeric = tf.test.compute_gradient(
        lambda *arguments: tf.reduce_sum(chunked(labels, *arguments)[0] ** 2),
        tensors,
    )
    assert_close(exact, numeric, 1e-5)


def test_half_precision_is_summed_in_float32(chunk_length):
    labels, tensors = make_case("float32")
    expected = with_gradients(plain, labels)(*tensors)
    halves = [tf.cast(x, tf.bfloat16) for x in tensors]
    results = with_gradients(chunked, labels)(*halves)
    assert results[0].dtype == results[1].dtype == tf.float32
    np.testing.assert_allclose(results[0], expected[0], rtol=0.1, atol=0.1)
    assert {x.dtype for x in results[2:]} == {tf.bfloat16}


def test_large_logits():
    labels, (hidden, *weights) = make_case("float32")
    results = with_gradients(chunked, labels)(1e4 * hidden, *weights)
    assert all(np.isfinite(result).all() for result in results)


def test_no_more_logits_than_a_step_takes(monkeypatch):
    monkeypatch.setattr(losses, "_LOGITS_IN_STEP", 4 * VOCABULARY)
    seen = []

    def watched(hidden, weights):
        logits = head(hidden, weights)
        seen.append(logits.shape.num_elements())
        return logits

    labels, (hidden, *weights) = make_case()
    chunked_cross_entropy(watched, hidden, weights, labels, VOCABULARY)
    assert max(seen) <= 4 * VOCABULARY
