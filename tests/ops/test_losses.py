import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops import losses
from keras_reformer.ops.losses import chunked_cross_entropy

BATCH, DIM, VOCABULARY, LENGTH = 2, 5, 7, 13


@pytest.fixture(params=[1, 3, 6, 13, 100])
def chunk_length(request, monkeypatch):
    """Positions whose logits are made at a time."""
    monkeypatch.setattr(losses, "LOGITS_IN_STEP", request.param * VOCABULARY)
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


def chunked(labels, hidden, *weights, smoothing=0.0):
    return chunked_cross_entropy(
        head, hidden, weights, labels, VOCABULARY, smoothing
    )


def plain(labels, hidden, *weights, smoothing=0.0):
    logits = head(hidden, weights)
    log_p = tf.nn.log_softmax(logits)
    targets = tf.one_hot(labels, VOCABULARY, dtype=logits.dtype)
    nats = -tf.reduce_sum(targets * log_p, axis=-1)
    smoothed = (1 - smoothing) * targets + smoothing / VOCABULARY
    losses = -tf.reduce_sum(smoothed * log_p, axis=-1)
    correct = tf.argmax(logits, -1) == labels
    return losses, nats, tf.cast(correct, logits.dtype)


def with_gradients(function, labels, **options):
    """All results, and gradients of unequally weighted positions."""

    def run(*arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            losses, nats, correct = function(labels, *arguments, **options)
            scale = tf.cast(tf.range(tf.size(nats)), nats.dtype)
            both = losses + 0.5 * nats[:, ::-1]
            loss = tf.reduce_sum(both * tf.reshape(scale, tf.shape(nats)))
        return losses, nats, correct, *tape.gradient(loss, arguments)

    return run


def assert_close(ones, others, atol):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype, atol", [("float64", 1e-12), ("float32", 1e-4)])
def test_values_and_gradients(chunk_length, execution, dtype, atol):
    labels, tensors = make_case(dtype)
    expected = with_gradients(plain, labels)(*tensors)
    results = execution(with_gradients(chunked, labels))(*tensors)
    assert_close(results, expected, atol)
    assert {result.dtype.name for result in results} == {dtype}


@pytest.mark.covering(1)
@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_label_smoothing(monkeypatch, execution, smoothing):
    monkeypatch.setattr(losses, "LOGITS_IN_STEP", 3 * VOCABULARY)
    labels, tensors = make_case()
    options = {"smoothing": smoothing}
    expected = with_gradients(plain, labels, **options)(*tensors)
    run = execution(with_gradients(chunked, labels, **options))
    assert_close(run(*tensors), expected, 1e-12)


def test_no_smoothing_is_the_cross_entropy():
    labels, tensors = make_case("float32")
    losses, nats, _ = chunked(labels, *tensors)
    np.testing.assert_array_equal(losses, nats)


@pytest.mark.parametrize("jit", [False, True])
def test_shape_known_while_running_only(monkeypatch, jit):
    monkeypatch.setattr(losses, "LOGITS_IN_STEP", 4 * VOCABULARY)

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
    monkeypatch.setattr(losses, "LOGITS_IN_STEP", 4 * VOCABULARY)
    labels, tensors = make_case(length=6)

    def loss(*arguments):
        found, *_ = chunked(labels, *arguments, smoothing=0.3)
        return tf.reduce_sum(found**2)

    exact, numeric = tf.test.compute_gradient(loss, tensors)
    assert_close(exact, numeric, 1e-5)


def test_half_precision_is_summed_in_float32(chunk_length):
    labels, tensors = make_case("float32")
    options = {"smoothing": 0.1}
    expected = with_gradients(plain, labels, **options)(*tensors)
    halves = [tf.cast(x, tf.bfloat16) for x in tensors]
    results = with_gradients(chunked, labels, **options)(*halves)
    assert {x.dtype for x in results[:3]} == {tf.float32}
    for found, exact in zip(results[:2], expected, strict=False):
        np.testing.assert_allclose(found, exact, rtol=0.1, atol=0.1)
    assert {x.dtype for x in results[3:]} == {tf.bfloat16}


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_large_logits(smoothing):
    labels, (hidden, *weights) = make_case("float32")
    run = with_gradients(chunked, labels, smoothing=smoothing)
    results = run(1e4 * hidden, *weights)
    assert all(np.isfinite(result).all() for result in results)


def test_no_more_logits_than_a_step_takes(monkeypatch):
    monkeypatch.setattr(losses, "LOGITS_IN_STEP", 4 * VOCABULARY)
    seen = []

    def watched(hidden, weights):
        logits = head(hidden, weights)
        seen.append(logits.shape.num_elements())
        return logits

    labels, (hidden, *weights) = make_case()
    chunked_cross_entropy(watched, hidden, weights, labels, VOCABULARY)
    assert max(seen) <= 4 * VOCABULARY
