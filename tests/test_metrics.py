import keras
import numpy as np
import pytest

from keras_reformer.metrics import BitsPerByte

LABELS = np.array([[0, 1, 2], [3, 3, 0]])
LOGITS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
WEIGHTS = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]], "float32")


def bits(labels, logits):
    logits = logits.astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log2(np.take_along_axis(p, labels[..., None], -1)[..., 0])


def close(a, b, rtol=1e-5):
    np.testing.assert_allclose(a, b, rtol=rtol)


def test_equal_logits_take_the_vocabularys_bits():
    metric = BitsPerByte()
    metric.update_state(np.zeros((2, 5), "int32"), np.zeros((2, 5, 256)))
    close(float(metric.result()), 8.0)


def test_mean_over_batches():
    metric = BitsPerByte()
    assert metric.name == "bits_per_byte"
    assert float(metric.result()) == 0.0
    for labels, logits in zip(LABELS, LOGITS, strict=True):
        metric.update_state(labels[None], logits[None])
    close(float(metric.result()), bits(LABELS, LOGITS).mean())
    metric.reset_state()
    metric.update_state(LABELS[:1], LOGITS[:1])
    close(float(metric.result()), bits(LABELS, LOGITS)[0].mean())


@pytest.mark.parametrize("weights", [WEIGHTS, WEIGHTS[:, 1:2]])
def test_weights(weights):
    metric = BitsPerByte()
    metric.update_state(LABELS, LOGITS, sample_weight=weights)
    spread = np.broadcast_to(weights, LABELS.shape)
    expected = (bits(LABELS, LOGITS) * spread).sum() / spread.sum()
    close(float(metric.result()), expected)


def test_from_nats():
    ones, others = BitsPerByte(), BitsPerByte()
    ones.update_state(LABELS, LOGITS, sample_weight=WEIGHTS)
    nats = bits(LABELS, LOGITS) * np.log(2.0)
    others.update_from_nats(nats.astype("float32"), WEIGHTS)
    close(float(ones.result()), float(others.result()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits(dtype):
    metric = BitsPerByte()
    metric.update_state(LABELS, keras.ops.cast(LOGITS, dtype))
    close(float(metric.result()), bits(LABELS, LOGITS).mean(), rtol=1e-2)


def test_config():
    metric = BitsPerByte(name="bpb", dtype="float32")
    config = keras.metrics.serialize(metric)
    other = keras.metrics.deserialize(config)
    assert type(other) is BitsPerByte
    assert other.get_config() == metric.get_config()
    assert (other.name, other.dtype) == ("bpb", "float32")


def test_in_any_keras_model(tmp_path):
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Identity()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=[BitsPerByte()], run_eagerly=True)
    results = model.evaluate(LOGITS, LABELS, verbose=0, return_dict=True)
    close(results["bits_per_byte"], bits(LABELS, LOGITS).mean())
    close(results["loss"], results["bits_per_byte"] * np.log(2.0))
    path = str(tmp_path / "model.keras")
    model.save(path)
    other = keras.models.load_model(path)
    again = other.evaluate(LOGITS, LABELS, verbose=0, return_dict=True)
    assert again == results
