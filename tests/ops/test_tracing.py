import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LocalSelfAttention, LSHSelfAttention
from keras_reformer.ops import tracing

LAYERS = {
    "local": lambda: LocalSelfAttention(2, 8, chunk_length=8, seed=0),
    "lsh": lambda: LSHSelfAttention(2, 12, chunk_length=8, seed=0),
}


def test_a_tpu_is_known_by_its_strategy(monkeypatch):
    assert not tracing.for_tpu()
    strategy = object.__new__(tf.distribute.TPUStrategy)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert tracing.for_tpu()


def test_a_trace_may_be_for_another_platform():
    assert tracing.platform() == "cpu"
    with tracing.lowering_for("tpu"):
        assert tracing.for_tpu()
        with tracing.lowering_for("gpu"):
            assert tracing.platform() == "gpu"
        assert tracing.platform() == "tpu"
    assert tracing.platform() == "cpu"
    with pytest.raises(ValueError, match="Received: platform='rocm'"):
        with tracing.lowering_for("rocm"):
            pass


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_traced_for_a_tpu_computes_the_same(name, monkeypatch):
    """Also where chunks have holes and tokens are masked."""
    layer = LAYERS[name]()
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, 43, 16)), tf.float32)
    mask = tf.constant(rng.random((2, 43)) < 0.8)
    layer(x)

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=mask)
            loss = tf.reduce_sum(y * y)
        return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]

    expected = gradients()
    with tracing.lowering_for("tpu"):
        found_gradients = gradients()
    for found, value in zip(found_gradients, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
