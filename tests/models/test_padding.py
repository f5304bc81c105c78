"""Padding as the published model pads."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.models import ReformerBackbone
from keras_reformer.models.padding import published_multiple
from tests.support.tiny import PUBLISHED, make_ids


@pytest.mark.covering(1)
@pytest.mark.parametrize("length", [7, 9, 23, 24, 25])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_padding_by_hand(length, masked):
    model, ids = ReformerBackbone(**PUBLISHED), make_ids(length=length)
    mask = np.ones(ids.shape, bool)
    if masked:
        mask[0, length // 2 :] = False
    spare = -length % 24
    whole = {
        "token_ids": np.pad(ids, ((0, 0), (0, spare)), constant_values=5),
        "padding_mask": np.pad(mask, ((0, 0), (0, spare))),
    }
    part = {"token_ids": ids, "padding_mask": mask} if masked else ids
    found, expected = model(part).numpy(), model(whole).numpy()[:, :length]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-5)


def test_lengths_that_are_not_known_while_tracing():
    model = ReformerBackbone(**PUBLISHED)
    run = tf.function(
        model, input_signature=[tf.TensorSpec((None, None), tf.int32)]
    )
    for length in (5, 23):
        ids = make_ids(length=length)
        np.testing.assert_allclose(run(ids), model(ids), atol=1e-5)


def multiple_of(**options):
    config = {**PUBLISHED, "attention_layers": ["lsh", "local"], **options}
    return published_multiple(types.SimpleNamespace(**config))


def test_inputs_within_the_smallest_chunk_stay_as_they_are():
    assert multiple_of() == (24, 6)


@pytest.mark.parametrize(
    "options",
    [{"wrap": False}, {"attention_layers": ["lsh"]}, {"local_chunk_length": 8}],
)
def test_layers_pad_to_their_own_chunks_otherwise(options):
    assert multiple_of(**options)[0] is None
