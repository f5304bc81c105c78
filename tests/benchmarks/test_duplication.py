import argparse

import batches
import duplication
import numpy as np


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
