"""Memory of compiled training steps does not grow with depth."""

import pytest

from tests.support.planned_memory import temporaries

LENGTH, WIDTH = 2048, 32
# Of one residual stream, in float32.
STREAM = LENGTH * WIDTH * 4

# XLA's flags are read once, so the steps are compiled in a process of their
# own.
_COMPILE = """
import sys

import tensorflow as tf

from tests.support import tiny, tiny_pairs

length, width, kind, recompute, *depths = sys.argv[1:]
for depth in map(int, depths):
    options = {
        "num_layers": depth,
        "hidden_dim": int(width),
        "max_sequence_length": int(length),
        "num_hashes": 1,
        "chunk_length": 64,
        "recompute": recompute == "True",
    }
    if kind == "seq2seq":
        options.update(intermediate_dim=32, dropout=0.1)
        model = tiny_pairs.make_model(**options)
        ids = tiny_pairs.make_inputs(1, int(length), int(length), masks=False)
    else:
        model = tiny.make_model(attention_layers=(kind,), **options)
        ids = tf.constant(tiny.make_ids(1, int(length)))
    variables = [v.value for v in model.trainable_variables]

    def step(ids):
        with tf.GradientTape() as tape:
            loss = model.training_loss(ids)
        return tape.gradient(loss, variables)

    step.__name__ = f"step_of_{depth}_blocks"
    step = tf.function(step, jit_compile=True, autograph=False)
    step(tf.nest.map_structure(tf.constant, ids))
"""


@pytest.mark.parametrize(
    "kind", ["local", pytest.param("lsh", marks=pytest.mark.slow)]
)
def test_a_block_more_takes_less_than_a_stream(kind, tmp_path):
    """Copies of its weights, and what it remembers of its hashing."""
    sizes = LENGTH, WIDTH, kind, True
    few, many = temporaries(tmp_path, _COMPILE, [4, 8], sizes)
    assert few > STREAM
    assert (many - few) / 4 < 0.5 * STREAM


@pytest.mark.slow
def test_blocks_of_an_encoder_and_a_decoder_take_less_than_a_stream(tmp_path):
    """The context and its gradient are there once for all blocks."""

    def planned(recompute, name):
        sizes = LENGTH, WIDTH, "seq2seq", recompute
        return temporaries(tmp_path / name, _COMPILE, [3, 6], sizes)

    few, many = planned(True, "flat")
    assert few > STREAM
    assert (many - few) / 3 < 0.5 * STREAM
    few, many = planned(False, "grows")
    assert (many - few) / 3 > 2 * STREAM
