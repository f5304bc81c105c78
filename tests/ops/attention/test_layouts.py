"""Layouts: what they gather, and that they put it back."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.ops.attention.kernel import output_gradient
from keras_reformer.ops.attention.layouts import (
    HashLayout,
    HashRounds,
    PositionLayout,
)
from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.attention.windowed import Vectors, WindowedAttention
from keras_reformer.ops.loops.tiling import Tile

ROWS, ROUNDS, LENGTH, CHUNK, DIM = 3, 2, 11, 4, 5
NUM_CHUNKS = 3
HALO = (1, 2)
WINDOW = Window(CHUNK, *HALO, False, True, False)


def make_positions():
    """Positions of every row; the last two tokens of the last are masked."""
    positions = np.tile(np.arange(LENGTH, dtype="int32"), (ROWS, 1))
    positions[-1, -2:] = -1
    return positions


def make_rounds():
    rng = np.random.default_rng(0)
    orders = rng.permuted(
        np.tile(np.arange(LENGTH, dtype="int32"), (ROWS, ROUNDS, 1)), axis=-1
    )
    return HashRounds(
        tf.constant(orders),
        tf.zeros_like(orders),
        tf.constant(make_positions()),
    )


def position_layout(wrap=False):
    return PositionLayout(
        tf.constant(make_positions()), WINDOW, tf.float32, wrap
    )


def hash_layout(index=1, wrap=False, rounds=None):
    return HashLayout(
        rounds or make_rounds(),
        tf.constant(index),
        WINDOW,
        tf.float32,
        wrap=wrap,
        needs_positions=True,
        coordinates=None,
    )


def make_vectors(seed=1):
    return tf.random.stateless_normal((ROWS, LENGTH, DIM), (seed, 2))


def padded_ring(ranks):
    """Tokens in chunks, -1 where the last chunk is padded."""
    spare = NUM_CHUNKS * CHUNK - LENGTH
    padded = np.pad(ranks, ((0, 0), (0, spare)), constant_values=-1)
    return padded.reshape(ROWS, NUM_CHUNKS, CHUNK)


def with_halo(ring, first, wrap):
    """Chunks from `first` on, with their halo, of a ring of chunks."""
    index = np.arange(first - HALO[0], first + NUM_CHUNKS + HALO[1])
    chunks = ring[:, index % ring.shape[1]]
    if not wrap:
        outside = (index < first) | (index >= first + NUM_CHUNKS)
        chunks = np.where(outside[:, None], -1, chunks)
    return chunks


def expected_tokens(kind, wrap):
    if kind == "position":
        return with_halo(padded_ring(make_positions()), 0, wrap)
    orders = make_rounds().orders.numpy()
    rings = [padded_ring(orders[:, index]) for index in range(ROUNDS)]
    return with_halo(np.concatenate(rings, axis=1), NUM_CHUNKS, wrap)


LAYOUTS = {"position": position_layout, "hash": hash_layout}


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_tiles_hold_the_tokens_of_their_chunks(kind, wrap):
    layout = LAYOUTS[kind](wrap=wrap)
    chunks = layout.chunks(HALO)
    tokens = expected_tokens(kind, wrap)
    np.testing.assert_array_equal(chunks.token, tokens)
    masked = (tokens < 0) | (np.arange(ROWS) == ROWS - 1)[:, None, None] & (
        tokens >= LENGTH - 2
    )
    position = layout.token_info(chunks).position
    np.testing.assert_array_equal(position, np.where(masked, -1, tokens))
    vectors = make_vectors()
    tile = Tile(0, 0, NUM_CHUNKS)
    slots = layout.slots(chunks, tile, HALO[0])
    (gathered,) = layout.gather((layout.prepare(vectors),), slots, tile)
    rows = np.arange(ROWS)[:, None, None]
    expected = vectors.numpy()[rows, np.maximum(tokens, 0)]
    expected = np.where(tokens[..., None] < 0, 0, expected)
    np.testing.assert_array_equal(gathered, expected)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_tile_of_one_row_and_chunk(kind):
    layout, vectors = LAYOUTS[kind](), make_vectors()
    chunks = layout.chunks((0, 0))
    tile = Tile(2, 1, 1)
    part = tf.nest.map_structure(
        lambda x: None if x is None else x[2:, 1:2], chunks
    )
    slots = layout.slots(part, tile, 0)
    (gathered,) = layout.gather((layout.prepare(vectors),), slots, tile)
    tokens = chunks.token[2, 1].numpy()
    expected = np.where(tokens[:, None] < 0, 0, vectors.numpy()[2, tokens])
    np.testing.assert_array_equal(gathered[0, 0], expected)


def test_results_are_restored_by_position():
    for layout in (position_layout(), hash_layout()):
        tokens = tf.cast(layout.chunks((0, 0)).token, tf.float32)
        (restored,) = layout.restore((tokens,))
        valid = make_positions() >= 0
        expected = np.tile(np.arange(LENGTH), (ROWS, 1))
        np.testing.assert_array_equal(restored.numpy()[valid], expected[valid])


@pytest.mark.parametrize("wrap", [False, True])
def test_sorted_orders_are_neighbouring_positions(wrap):
    """With the identity for an order, one round is local attention."""
    order = np.tile(np.arange(LENGTH, dtype="int32"), (ROWS, 1, 1))
    rounds = make_rounds()._replace(
        orders=tf.constant(order), buckets=tf.zeros_like(order)
    )
    layouts = position_layout(wrap), hash_layout(0, wrap, rounds)
    engine = WindowedAttention(WINDOW, tf.dtypes.float32)
    vectors = Vectors(*(make_vectors(seed) for seed in (1, 2, 3)))
    valid = make_positions() >= 0
    # Callers cut off the outputs of masked queries.
    d_output = tf.where(valid[..., None], make_vectors(4), 0.0)
    by_position, by_rank = (
        (*results, *engine.backward(layout, vectors, upstream))
        for layout in layouts
        for results in [engine.forward(layout, vectors)]
        for upstream in [output_gradient(d_output, *results)]
    )
    assert len(by_position) == 5
    for a, b in zip(by_position, by_rank, strict=True):
        np.testing.assert_allclose(
            a.numpy()[valid], b.numpy()[valid], 1e-5, 1e-6
        )
