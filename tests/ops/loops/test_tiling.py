import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.ops import tracing
from keras_reformer.ops.loops import tiling
from keras_reformer.ops.loops.scan import ArraySpec
from keras_reformer.ops.loops.tiling import (
    map_rows,
    plan_tiles,
    tokens_in_tile,
)


@pytest.fixture
def default_tiles():
    yield
    keras_reformer.set_tokens_in_tile(None)


def test_tiles_follow_where_a_trace_will_run():
    tiles = {}
    for platform in tracing.PLATFORMS:
        with tracing.lowering_for(platform):
            plan = plan_tiles(rows=8, chunks=256, chunk_length=64, halo=1)
            tiles[platform] = plan.num_tiles
    assert tiles == {"cpu": 32, "gpu": 1, "tpu": 16}


def test_tiles_that_are_asked_for(default_tiles):
    keras_reformer.set_tokens_in_tile(16384)
    for platform in tracing.PLATFORMS:
        with tracing.lowering_for(platform):
            assert tokens_in_tile() == 16384
            plan = plan_tiles(rows=8, chunks=256, chunk_length=64, halo=1)
            assert plan.num_tiles == 8
    keras_reformer.set_tokens_in_tile(None)
    assert tokens_in_tile() == 4096


@pytest.mark.parametrize("tokens", [0, -1, 2.5, True, "many"])
def test_tiles_that_cannot_be(tokens):
    with pytest.raises(ValueError, match="Received: tokens="):
        keras_reformer.set_tokens_in_tile(tokens)


@pytest.mark.parametrize(
    "platform, tokens, groups",
    [("tpu", n, groups) for n, groups in ((4, 1), (5, 6), (23, 2), (30, 1))]
    + [("cpu", 5, 1)],
)
def test_groups_of_rows(platform, tokens, groups, monkeypatch, execution):
    monkeypatch.setattr(tiling, "TOKENS_IN_GROUP", tokens)
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "tpu", tokens)
    x = np.arange(6.0 * 5 * 2).reshape(6, 5, 2)
    first_rows = []

    def double(first_row, x, others):
        first_rows.append(first_row)
        assert x.shape == (6 // groups, 5, 2) and others["none"] is None
        number = tf.constant(0) if first_row is None else first_row
        rows = number + tf.range(6 // groups)
        return 2 * x[:, :, 0] + others["y"], rows, tf.reduce_sum(x)

    @execution
    def run(x, y):
        return map_rows(
            double,
            (x, {"y": y, "none": None}),
            results=[ArraySpec([5], x.dtype), ArraySpec([], tf.int32)],
            sums=[ArraySpec([], x.dtype)],
        )

    with tracing.lowering_for(platform):
        doubled, rows, total = run(tf.constant(x), tf.constant(x[:, :, 1]))
    np.testing.assert_array_equal(doubled, 2 * x[:, :, 0] + x[:, :, 1])
    np.testing.assert_array_equal(rows, np.arange(6))
    assert total == x.sum()
    assert (None in first_rows) == (groups == 1)


def test_rows_of_unknown_number_are_one_group(monkeypatch):
    monkeypatch.setattr(tiling, "TOKENS_IN_GROUP", 5)

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32)])
    def first_row(x):
        return map_rows(
            lambda first_row, x: (tf.constant(first_row is None),),
            (x,),
            results=[ArraySpec([], tf.bool)],
        )

    with tracing.lowering_for("tpu"):
        (is_none,) = first_row(tf.zeros([4, 5]))
    assert is_none
