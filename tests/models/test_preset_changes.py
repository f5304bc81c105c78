"""Arguments that replace those of a preset's folder."""

import numpy as np
import pytest

from keras_reformer.models import (
    ReformerCausalLM,
    ReformerClassifier,
    ReformerSeq2Seq,
    ReformerSeq2SeqBackbone,
    from_preset,
)
from keras_reformer.models.preset_changes import with_changes
from tests.support import tiny, tiny_pairs

IDS = tiny.make_ids(2, 20)


@pytest.fixture(scope="module")
def model():
    return tiny.make_model(**tiny.SMALLEST)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("preset")
    model.save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def classifier():
    sizes = {**tiny.SIZES, **tiny.SMALLEST}
    return ReformerClassifier(**sizes, num_classes=2)


@pytest.fixture(scope="module")
def classifiers(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    classifier.save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def pair():
    return tiny_pairs.make_model()


@pytest.fixture(scope="module")
def pairs(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    pair.save_to_preset(folder)
    return folder


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# --- Tasks ---


def test_a_name_is_that_of_the_model(model, folder):
    found = from_preset(folder, name="mine")
    assert (found.name, found.backbone.name) == ("mine", model.backbone.name)
    assert_equal(found.get_weights(), model.get_weights())
    other = ReformerClassifier.from_preset(
        folder, num_classes=2, causal=False, name="other"
    )
    assert (other.name, other.backbone.name) == ("other", model.backbone.name)


@pytest.mark.parametrize(
    "load",
    [
        from_preset,
        pytest.param(ReformerClassifier.from_preset, marks=pytest.mark.slow),
    ],
    ids=["any", "class"],
)
def test_arguments_of_a_head_keep_its_weights(classifier, classifiers, load):
    found = load(classifiers, head_dropout=0.3, dropout=0.2)
    config = found.get_config()
    assert (config["head_dropout"], config["num_classes"]) == (0.3, 2)
    assert found.head_dropout.rate == 0.3
    assert found.backbone.get_config()["dropout"] == 0.2
    assert_equal(found.get_weights(), classifier.get_weights())


def test_a_head_of_other_weights_is_drawn(classifier, classifiers):
    found = from_preset(classifiers, num_classes=3)
    assert found(IDS).shape == (2, 3)
    assert_equal(
        found.backbone.get_weights(), classifier.backbone.get_weights()
    )


def test_settings_of_single_layers_give_way(tmp_path):
    model = tiny.make_model(num_layers=1, attention_layers=("lsh",))
    layer = model.backbone.lsh_layers()[0]
    layer.num_hashes = 4
    model.save_to_preset(tmp_path)
    rounds = [
        found.backbone.lsh_layers()[0].num_hashes
        for found in (
            from_preset(tmp_path, dropout=0.1),
            from_preset(tmp_path, num_hashes=3),
        )
    ]
    assert rounds == [4, 3]


# --- Both sides of an encoder-decoder ---


def configs(model):
    backbone = getattr(model, "backbone", model)
    return backbone.encoder.get_config(), backbone.get_config()


def test_both_sides_change(pair, pairs):
    found = from_preset(pairs, dropout=0.3, seed=7, name="mine")
    assert type(found) is ReformerSeq2Seq and found.name == "mine"
    assert [side["dropout"] for side in configs(found)] == [0.3, 0.3]
    # As the constructor has it.
    assert [side["seed"] for side in configs(found)] == [8, 7]
    assert configs(found)[0]["name"] == "encoder"
    assert_equal(found.get_weights(), pair.get_weights())
    inputs = tiny_pairs.make_inputs()
    np.testing.assert_array_equal(found(inputs), pair(inputs))


@pytest.mark.parametrize(
    "changes, heads",
    [
        ({"num_heads": 4}, [4, 4, 4]),
        ({"num_key_value_heads": 1}, [1, 1, 1]),
        ({"num_heads": 4, "num_key_value_heads": 2}, [2, 2, 2]),
        ({"num_heads": 4, "cross_num_key_value_heads": 1}, [4, 4, 1]),
    ],
    ids=["queries", "keys", "both", "cross"],
)
def test_heads_follow_as_in_the_constructor(pair, changes, heads):
    (encoder, decoder), name = _changed(pair, changes), "num_key_value_heads"
    found = [encoder[name], decoder[name], decoder[f"cross_{name}"]]
    assert found == heads
    for side in (encoder, decoder):
        assert side["key_dim"] == 8 // side["num_heads"]


def test_tables_follow_as_in_the_constructor(pair, model):
    sizes = {"max_sequence_length": 96, "hidden_dim": 16}
    _, found = _changed(pair, sizes)
    _, expected = configs(tiny_pairs.make_model(**sizes))
    for name in ("axial_shape", "axial_dims", "key_dim"):
        assert found[name] == expected[name], name


def test_what_was_set_does_not_follow():
    pair = tiny_pairs.make_model(key_dim=6, num_key_value_heads=1)
    for side in _changed(pair, {"num_heads": 4}):
        assert (side["key_dim"], side["num_key_value_heads"]) == (6, 1)


def _changed(model, changes):
    return configs(with_changes(model, changes, keep_weights=False))


@pytest.mark.slow
def test_both_sides_of_a_backbone_change(pairs):
    found = ReformerSeq2SeqBackbone.from_preset(
        pairs, load_weights=False, intermediate_dim=24, name="mine"
    )
    assert [side["intermediate_dim"] for side in configs(found)] == [24, 24]
    assert [side["name"] for side in configs(found)] == ["encoder", "mine"]


def test_an_encoder_comes_with_the_folder(pair, pairs):
    with pytest.raises(ValueError, match="encoder's weights too.*encoder="):
        from_preset(pairs, encoder=pair.backbone.encoder)
    with pytest.raises(ValueError, match="Expected no `causal`"):
        from_preset(pairs, causal=True)


# --- Changes that the weights do not fit ---


@pytest.mark.parametrize(
    "changes, held, received",
    [
        ({"num_key_value_heads": 1}, "num_key_value_heads=2", None),
        (
            {"dropout": 0.5, "intermediate_dim": 8, "num_layers": 1},
            "intermediate_dim=32",
            "intermediate_dim=8$",
        ),
        # The second does not go alone.
        pytest.param(
            {"hidden_dim": 8, "axial_dims": (4, 4)},
            r"hidden_dim=16, axial_dims=\[4, 12\]",
            r"hidden_dim=8, axial_dims=\[4, 4\]",
            marks=pytest.mark.slow,
        ),
        # Layers of other names.
        pytest.param(
            {"attention_layers": ("lsh",)},
            r"attention_layers=\['local'\]",
            r"attention_layers=\['lsh'\]",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["one", "one of three", "two", "kinds"],
)
def test_weights_that_do_not_fit(folder, changes, held, received):
    received = received or ", ".join(f"{k}={v}" for k, v in changes.items())
    message = f"Expected {held}, as .*load_weights=False.*Received: {received}"
    with pytest.raises(ValueError, match=message):
        ReformerCausalLM.from_preset(folder, **changes)


@pytest.mark.slow
def test_weights_of_such_changes_are_drawn_on_request(folder):
    found = from_preset(folder, load_weights=False, num_key_value_heads=1)
    assert found.backbone.get_config()["num_key_value_heads"] == 1


@pytest.mark.slow
def test_weights_of_an_encoder_that_do_not_fit(pairs):
    with pytest.raises(ValueError, match="share_embeddings=True, as.*=False$"):
        from_preset(pairs, share_embeddings=False)


@pytest.mark.parametrize(
    "fixture", ["folder", pytest.param("pairs", marks=pytest.mark.slow)]
)
def test_arguments_that_there_are_not(fixture, request):
    with pytest.raises(ValueError, match="Received: nope"):
        from_preset(request.getfixturevalue(fixture), nope=3)
