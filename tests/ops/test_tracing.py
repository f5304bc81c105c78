import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    AlibiBias,
    LocalSelfAttention,
    LSHSelfAttention,
)
from keras_reformer.ops import tracing
from keras_reformer.ops.attention.lanes import shared_lanes
from keras_reformer.ops.loops import tiling


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


def lsh(**options):
    # Rows of a TPU hold heads of 12: three numbers in three parts fit.
    return LSHSelfAttention(
        2, 12, **{"value_dim": 9, "chunk_length": 8, "seed": 0, **options}
    )


LAYERS = {
    "local": lambda: LocalSelfAttention(2, 8, chunk_length=8, seed=0),
    "lsh": lsh,
    "one round, dropout": lambda: lsh(num_hashes=1, dropout=0.4, causal=True),
    "published": lambda: lsh(scope="chunk", wrap=True, num_chunks_after=1),
    "discount, bias": lambda: lsh(
        duplicates="discount", position_bias=AlibiBias(2)
    ),
    "importance": lambda: lsh(duplicates="importance", num_chunks_before=2),
    "narrow heads": lambda: LSHSelfAttention(2, 4, chunk_length=8, seed=0),
    "wide heads": lambda: LSHSelfAttention(2, 100, chunk_length=8, seed=0),
    "float64": lambda: lsh(dtype="float64"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_traced_for_a_tpu_computes_the_same(name, monkeypatch):
    """Also one row at a time, in several tiles, the last one not full, where
    chunks have holes and tokens are masked."""
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "tpu", 32)
    monkeypatch.setattr(tiling, "TOKENS_IN_GROUP", 86)
    layer = LAYERS[name]()
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, 43, 16)), layer.compute_dtype)
    mask = tf.constant(rng.random((2, 43)) < 0.8)
    layer(x)
    seed = [keras.ops.copy(each) for each in layer.non_trainable_variables]

    def gradients():
        for variable, value in zip(
            layer.non_trainable_variables, seed, strict=True
        ):
            variable.assign(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=mask, training=True)
            loss = tf.reduce_sum(y * y)
        return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]

    expected = gradients()
    with tracing.lowering_for("tpu"):
        found_gradients = gradients()
    for found, value in zip(found_gradients, expected, strict=True):
        scale = np.abs(value).max()
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5 * scale)


def test_heads_share_rows_of_a_tpu_where_they_fit():
    assert shared_lanes(64, 64, tf.float32) is None
    with tracing.lowering_for("tpu"):
        assert shared_lanes(64, 64, tf.float32) == (64, 64)
        assert shared_lanes(64, 65, tf.float32) is None
        assert shared_lanes(8, 64, tf.float32) is None
        assert shared_lanes(64, 64, tf.float64) is None
