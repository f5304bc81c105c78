import argparse

import batches
import duplication
import numpy as np
import pytest


def test_examples_are_zero_w_zero_w_and_the_second_w_counts():
    tokens, labels, weights = batches.duplication(0, 0, 50, 22, 7, index=0)
    np.testing.assert_array_equal(tokens[:, :11], tokens[:, 11:])
    assert (tokens[:, 0] == 0).all()
    assert set(tokens[:, 1:11].ravel()) == set(range(1, 8))
    np.testing.assert_array_equal(labels[:, :-1], tokens[:, 1:])
    counted = labels[weights == 1].reshape(50, 10)
    np.testing.assert_array_equal(counted, tokens[:, 1:11])
    assert weights.sum() == 500


@pytest.mark.parametrize("length", [2, 21])
def test_other_lengths_are_refused(length):
    with pytest.raises(ValueError, match=f"length={length}"):
        batches.duplication(0, 0, 1, length, 7, index=0)


def test_the_place_that_predicts_a_symbol_is_in_its_column():
    defaults = {name: value for name, (value, _) in duplication.OPTIONS.items()}
    changes = {"length": 22, "width": 16, "position_embedding": "columns"}
    options = argparse.Namespace(**{**defaults, **changes})
    model = duplication.make_model(options, "lsh-2", 0)
    config = model.backbone.get_config()
    columns = config["axial_shape"][-1]
    _, _, weights = batches.duplication(0, 0, 1, 22, 7, index=0)
    for place in np.flatnonzero(weights[0]):
        source = place + 1 - 11
        assert place % columns == source % columns
    assert config["num_hashes"] == 2
