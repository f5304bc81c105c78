"""Stochastic depth: examples skip whole blocks, in both passes alike."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)
from keras_reformer.ops.reversible import scan
from tests.support import tiny
from tests.support.executions import EXECUTIONS
from tests.support.stacks import (
    check_against_plain,
    gradient_function,
    set_weights_apart,
)

BATCH, LENGTH, DIM, RATE = 11, 13, 5, 0.3
SHAPE = (BATCH, LENGTH, DIM)
DTYPE = "float64"


def make_attention(kind, **options):
    if kind is FeedForward:
        return FeedForward(3, **options)
    options.update(chunk_length=4, causal=True)
    if kind is LSHSelfAttention:
        options.update(num_hashes=1, num_buckets=4)
    return kind(2, 3, **options)


def make_block(kind, index, dropout=0.1):
    options = {"dropout": dropout, "seed": index, "dtype": DTYPE}
    layers = make_attention(kind, **options), FeedForward(7, **options)
    return ReversibleBlock(
        *(
            PreNormalization(
                layer,
                dropout=dropout,
                seed=100 + index,
                stochastic_depth=RATE,
                stochastic_depth_seed=200 + index,
                dtype=DTYPE,
            )
            for layer in layers
        ),
        dtype=DTYPE,
    )


def make_sequence(kind, depth=1, **options):
    """Blocks of a kind of attention; each has a seed of its own."""
    blocks = [make_block(kind, index) for index in range(depth)]
    sequence = ReversibleSequence(blocks, dtype=DTYPE, **options)
    sequence.build(SHAPE)
    set_weights_apart(sequence)
    return sequence


def make_inputs(seed=0):
    return tf.random.stateless_normal(SHAPE, [seed, 2], dtype=DTYPE)


def skipped(inputs, outputs):
    """Whether each example's stream is what it was."""
    return np.all(np.isclose(inputs, outputs, atol=1e-12), axis=(1, 2))


def gradients(sequence):
    weights = np.random.default_rng(0).normal(size=(*SHAPE[:2], 2 * DIM))

    def loss(x):
        return tf.reduce_sum(sequence(x, training=True) * weights)

    return gradient_function(sequence, loss)


@pytest.mark.covering(1)
@pytest.mark.parametrize("recompute", [True, False])
def test_an_example_skips_both_branches(recompute, execution):
    sequence = ReversibleSequence(
        [make_block(FeedForward, 0)],
        merge=None,
        recompute=recompute,
        dtype=DTYPE,
    )
    pair = make_inputs(), make_inputs(1)
    sequence.build(SHAPE)
    call = execution(lambda x1, x2: sequence((x1, x2), training=True))
    counts = []
    for _ in range(3):
        first, second = map(skipped, pair, call(*pair))
        np.testing.assert_array_equal(first, second)
        counts.append(tuple(first))
    assert 0 < np.mean(counts) < 2 * RATE
    assert len(set(counts)) == 3


def test_others_are_scaled_up():
    branch = make_block(LocalSelfAttention, 0, dropout=0.0).attention
    x = make_inputs()
    whole = branch(x)
    found = branch(x, training=True)
    kept = ~skipped(np.zeros(SHAPE), found)
    assert 0 < kept.sum() < BATCH
    np.testing.assert_allclose(found[kept], whole[kept] / (1 - RATE))


def test_blocks_of_a_backbone_draw_for_themselves():
    backbone = tiny.make_backbone(
        num_layers=3, attention_layers="local", stochastic_depth=RATE
    )
    pair = (tf.random.stateless_normal((31, 5, 16), [1, 2]),) * 2
    drawn = []
    for block in backbone.sequence.blocks:
        first, second = map(skipped, pair, block(pair, training=True))
        np.testing.assert_array_equal(first, second)
        assert 0 < first.mean() < 2 * RATE
        drawn.append(tuple(first))
    assert len(set(drawn)) == 3


def test_without_a_seed_branches_of_a_block_draw_alike():
    options = {**tiny.SMALLEST, "seed": None, "stochastic_depth": 0.5}
    (block,) = tiny.make_backbone(**options).sequence.blocks
    pair = (tf.random.stateless_normal((31, 5, 16), [1, 2]),) * 2
    first, second = map(skipped, pair, block(pair, training=True))
    np.testing.assert_array_equal(first, second)


def test_inference_is_unchanged():
    ids = tiny.make_ids()
    some, none = (
        tiny.make_backbone(stochastic_depth=rate, **tiny.SMALLEST)
        for rate in (RATE, 0.0)
    )
    np.testing.assert_array_equal(some(ids), none(ids))


@pytest.mark.parametrize(
    "name", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)]
)
def test_equals_plain_backpropagation(name):
    execution = EXECUTIONS[name]
    sequence = make_sequence(LSHSelfAttention)
    expected = check_against_plain(
        sequence, gradients(sequence), [make_inputs()], execution, 1e-12
    )
    assert all(np.any(one) for one in expected)


@pytest.mark.parametrize(
    "name", ["graph", pytest.param("xla", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_equals_plain_backpropagation_in_a_loop(name, monkeypatch):
    counts, original = [], scan.ScannedStack.__init__

    def init(self, branches, count):
        counts.append(count)
        original(self, branches, count)

    monkeypatch.setattr(scan.ScannedStack, "__init__", init)
    sequence = make_sequence(FeedForward, 2)
    check_against_plain(
        sequence,
        gradients(sequence),
        [make_inputs()],
        EXECUTIONS[name],
        1e-12,
    )
    assert counts == [2]


def test_an_example_that_skips_a_block_gets_its_gradient_unchanged():
    sequence = make_sequence(FeedForward, merge="mean")
    x = make_inputs()
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = sequence(x, training=True)
    gradient = tape.gradient(outputs, x)
    out = skipped(x, outputs)
    assert 0 < out.sum() < BATCH
    np.testing.assert_array_equal(gradient[out], np.ones((out.sum(), 13, 5)))
