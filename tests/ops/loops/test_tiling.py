import pytest

import keras_reformer
from keras_reformer.ops import tracing
from keras_reformer.ops.loops.tiling import plan_tiles, tokens_in_tile


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
    assert tiles == {"cpu": 32, "gpu": 1, "tpu": 32}


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
