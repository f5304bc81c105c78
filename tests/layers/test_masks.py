"""Masks that `Embedding(mask_zero=True)` attaches to its outputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from keras_reformer.layers import (
    CrossAttention,
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    PreNormalization,
    Recompute,
    ReversibleBlock,
    ReversibleSequence,
)

DIM = 4
TOKENS = np.array([[1, 2, 3, 4, 0, 0, 0], [5, 6, 7, 0, 0, 0, 0]])
MASK = TOKENS > 0
# Not the attached one: it shows padding and hides a token.
EXPLICIT = np.array([[1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0]], bool)
SEGMENTS = np.array([[0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]], "int32")
CONTEXT = np.random.default_rng(0).normal(size=(2, 5, DIM)).astype("float32")
PACKED, DECODER = {"segment_ids": SEGMENTS}, {"context": CONTEXT}


def local():
    return LocalSelfAttention(1, 4, chunk_length=4, num_chunks_after=1)


def lsh():
    options = {"num_buckets": 2, "num_chunks_after": 1, "seed": 1}
    return LSHSelfAttention(1, 4, chunk_length=4, **options)


def exact():
    return MultiHeadAttention(1, 4)


def cross():
    return CrossAttention(1, 4)


def block():
    return ReversibleBlock(local(), FeedForward(4))


def decoder_block():
    return ReversibleBlock(local(), FeedForward(4), cross())


class Kind(NamedTuple):
    """A layer that takes a mask beside another tensor."""

    make: Callable[[], Any]
    more: dict
    takes_pair: bool = False

    def call(self, layer, x, **options):
        """The outputs, in one tensor."""
        found = layer((x, x) if self.takes_pair else x, **options)
        if not self.takes_pair:
            return found
        return keras.layers.Concatenate()(found)


KINDS = {
    "local": Kind(local, PACKED),
    "lsh": Kind(lsh, PACKED),
    "exact": Kind(exact, PACKED),
    "branch": Kind(lambda: PreNormalization(local()), PACKED),
    "block": Kind(block, PACKED, takes_pair=True),
    "stack": Kind(lambda: ReversibleSequence([block()]), PACKED),
    "recompute": Kind(lambda: Recompute(local()), PACKED),
    "cross": Kind(cross, DECODER),
    "cross_branch": Kind(lambda: PreNormalization(cross()), DECODER),
    "decoder_block": Kind(decoder_block, DECODER, takes_pair=True),
    "decoder": Kind(lambda: ReversibleSequence([decoder_block()]), DECODER),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def make_embedding():
    """Embeddings of the size of 1: in small ones masks would not show."""
    initializer = keras.initializers.RandomNormal(stddev=1.0, seed=0)
    return keras.layers.Embedding(9, DIM, initializer, mask_zero=True)


@each_kind
def test_attached_masks_count_beside_other_tensors(kind):
    layer, x = kind.make(), make_embedding()(TOKENS)
    bare = np.asarray(x)
    expected = kind.call(layer, bare, mask=MASK, **kind.more)
    unmasked = kind.call(layer, bare, **kind.more)
    assert np.abs(unmasked - expected).max() > 1e-2
    found = kind.call(layer, x, **kind.more)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    given = kind.call(layer, x, mask=EXPLICIT, **kind.more)
    expected = kind.call(layer, bare, mask=EXPLICIT, **kind.more)
    np.testing.assert_allclose(given, expected, atol=1e-6)


@each_kind
def test_attached_masks_count_in_functional_models(kind, tmp_path):
    """The means behind a layer are over the tokens that its mask shows."""
    (name, value), layer = next(iter(kind.more.items())), kind.make()
    embedding, mean = make_embedding(), keras.layers.GlobalAveragePooling1D()
    ids = keras.Input((None,), dtype="int32")
    other = keras.Input((None, *value.shape[2:]), dtype=str(value.dtype))
    outputs = kind.call(layer, embedding(ids), **{name: other})
    model = keras.Model([ids, other], [outputs, mean(outputs)])
    bare = np.asarray(embedding(TOKENS))
    expected = kind.call(layer, bare, mask=MASK, **kind.more)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        found, means = each([TOKENS, value])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        expected_means = mean(np.asarray(expected), mask=MASK)
        np.testing.assert_allclose(means, expected_means, atol=1e-6)


@pytest.mark.slow
@each_kind
def test_attached_masks_count_in_compiled_steps(kind):
    """Training on padding leaves the weights where they are."""
    (name, value), layer = next(iter(kind.more.items())), kind.make()
    ids = keras.Input((7,), dtype="int32")
    other = keras.Input(value.shape[1:], dtype=str(value.dtype))
    outputs = kind.call(layer, make_embedding()(ids), **{name: other})
    model = keras.Model([ids, other], outputs)
    expected = model([TOKENS, value])
    found = model.predict([TOKENS, value], verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_mask_of_the_second_stream_counts():
    layer, x = block(), make_embedding()(TOKENS)
    bare = np.asarray(x)
    for inputs in ((bare, x), (x, bare)):
        for found, expected in zip(
            layer(inputs, **PACKED),
            layer((bare, bare), mask=MASK, **PACKED),
            strict=True,
        ):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_mask_wins_over_that_of_queries():
    """Which Keras fills in with what is attached."""
    layer = MultiHeadAttention(num_heads=1, key_dim=4)
    x = np.random.default_rng(0).normal(size=(1, 5, 4)).astype("float32")
    mask, other = (np.arange(5)[None] < n for n in (3, 4))
    np.testing.assert_array_equal(
        layer(x, mask=mask, query_mask=other), layer(x, mask=mask)
    )


def test_sums_of_symbolic_tensors_keep_masks_only_as_a_layer():
    """`x + y` is Keras's, and drops them."""
    ids = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    x, y = embedding(ids), embedding(ids)
    attention = LocalSelfAttention(num_heads=1, key_dim=4, chunk_length=8)
    lost, kept = (
        keras.Model(ids, attention(total))
        for total in (x + y, keras.layers.Add()([x, y]))
    )
    tokens = np.array([[1, 2, 3, 0, 0]])
    mask = tokens > 0
    doubled = 2 * np.asarray(embedding(tokens))
    np.testing.assert_allclose(
        kept(tokens), attention(doubled, mask=mask), atol=1e-6
    )
    np.testing.assert_allclose(lost(tokens), attention(doubled), atol=1e-6)
    assert not np.allclose(lost(tokens), kept(tokens), atol=1e-3)
