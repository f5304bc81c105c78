import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.models import ReformerBackbone
from tests.support import tiny

IDS = tiny.make_ids()
MASK = tiny.make_mask(IDS)
MASKED = {"token_ids": IDS, "padding_mask": MASK}


def call(model):
    return model(MASKED).numpy()


@pytest.mark.parametrize("merge, width", [("concat", 32), ("mean", 16)])
def test_shapes(merge, width):
    backbone = tiny.make_backbone(merge=merge, **tiny.SMALLEST)
    assert backbone.output_shape == (None, None, width)
    outputs = backbone(IDS)
    assert outputs.shape == (*IDS.shape, width)
    assert outputs.dtype == "float32"


def test_outputs_are_normalized():
    outputs = tiny.make_backbone()(IDS).numpy()
    np.testing.assert_allclose(outputs.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(outputs.var(-1), 1.0, atol=1e-2)


def test_attention_layers_are_cycled():
    backbone = tiny.make_backbone(
        num_layers=5, attention_layers=("local", "lsh", "lsh")
    )
    kinds = [b.attention.layer for b in backbone.sequence.blocks]
    local = keras_reformer.LocalSelfAttention
    expected = [True, False, False, True, False]
    assert [isinstance(layer, local) for layer in kinds] == expected


def test_arguments_reach_the_layers():
    backbone = tiny.make_backbone(
        chunk_length=4,
        local_chunk_length=6,
        key_dim=5,
        num_hashes=3,
        num_buckets=6,
        lsh_num_chunks_before=2,
        local_num_chunks_before=3,
        dropout=0.2,
        activation="relu",
        recompute=False,
        duplicates="importance",
    )
    first, second = backbone.sequence.blocks
    local, lsh = first.attention.layer, second.attention.layer
    assert (local.chunk_length, lsh.chunk_length) == (6, 4)
    assert (local.num_chunks_before, lsh.num_chunks_before) == (3, 2)
    assert (local.key_dim, lsh.key_dim) == (5, 5)
    assert (lsh.num_hashes, lsh.num_buckets) == (3, 6)
    assert lsh.duplicates == "importance"
    assert (local.dropout, lsh.dropout, first.attention.dropout) == (0.2,) * 3
    assert first.feed_forward.layer.activation is keras.activations.relu
    assert local.causal and lsh.causal
    assert not backbone.sequence.recompute


def test_number_of_buckets_follows_the_longest_sequence():
    small = tiny.make_backbone(max_sequence_length=64)
    large = tiny.make_backbone(max_sequence_length=640)
    number = [
        np.prod(model.get_config()["num_buckets"]) for model in (small, large)
    ]
    assert number == [8, 80]


@pytest.mark.covering(1)
@pytest.mark.parametrize("length", [1, 2, 3, 17, 100, 997, 1000])
@pytest.mark.parametrize("width", [2, 3, 16])
def test_positions_have_room(length, width):
    config = tiny.make_backbone(
        max_sequence_length=length,
        hidden_dim=width,
        num_heads=1,
        **tiny.SMALLEST,
    ).get_config()
    assert np.prod(config["axial_shape"]) >= length
    assert sum(config["axial_dims"]) == width


def test_without_positions_equal_tokens_are_equal():
    backbone = tiny.make_backbone(position_embedding=None)
    outputs = backbone(np.ones((1, 1), "int32")).numpy()
    assert backbone.position_embedding is None
    assert np.isfinite(outputs).all()


def test_embed_is_what_the_stack_gets():
    backbone = tiny.make_backbone()
    outputs = backbone.normalization(backbone.sequence(backbone.embed(IDS)))
    np.testing.assert_allclose(outputs, backbone(IDS), atol=1e-5)


def test_bidirectional_tokens_see_later_ones():
    backbone = tiny.make_backbone(causal=False)
    changed = IDS.copy()
    changed[:, 20] = (changed[:, 20] + 1) % tiny.VOCABULARY
    difference = np.abs(backbone(IDS).numpy() - backbone(changed).numpy())
    assert (difference.max(axis=(0, 2))[17:24] > 1e-4).all()


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal):
    backbone = tiny.make_backbone(causal=causal)
    for row in range(len(IDS)):
        length = MASK[row].sum()
        alone = backbone(IDS[row : row + 1, :length]).numpy()[0]
        padded = backbone(MASKED).numpy()[row, :length]
        np.testing.assert_allclose(alone, padded, atol=1e-5)


def test_equal_seeds_draw_equal_rotations():
    rotations = []
    for seed in (1, 1, 2):
        lsh = tiny.make_backbone(seed=seed).sequence.blocks[1].attention.layer
        rotations.append(tuple(lsh.rotation_seed.numpy().tolist()))
    assert rotations[0] == rotations[1] != rotations[2]


def test_layers_have_seeds_of_their_own():
    backbone = tiny.make_backbone(num_layers=3, dropout=0.1)
    states = [
        tuple(v.numpy().tolist())
        for v in backbone.variables
        if v.name == "seed_generator_state"
    ]
    assert len(states) > 10
    assert len(set(states)) == len(states)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"num_heads": 3}, "num_heads"),
        ({"num_layers": 0}, "num_layers"),
        ({"vocabulary_size": -1}, "vocabulary_size"),
        ({"hidden_dim": 2.5}, "hidden_dim"),
        ({"chunk_length": 0}, "chunk_length"),
        ({"num_buckets": 7}, "num_buckets"),
        ({"num_buckets": [4, 0]}, "num_buckets"),
        ({"num_hashes": 0}, "num_hashes"),
        ({"attention_layers": ()}, "attention_layers"),
        ({"attention_layers": ("global",)}, "attention_layers"),
        ({"scope": "sequence"}, "scope"),
        ({"merge": "sum"}, "merge"),
        ({"duplicates": "once"}, "duplicates='once'"),
        ({"duplicates": None}, "duplicates=None"),
        ({"position_embedding": "sine"}, "position_embedding"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"wrap": True}, "wrap"),
        ({"axial_shape": (4, 4)}, "axial_shape"),
        ({"axial_shape": []}, "axial_shape"),
        ({"axial_shape": (10, 10), "axial_dims": (4, 4)}, "dims"),
        ({"local_num_chunks_before": -1}, "num_chunks_before"),
    ],
    ids=str,
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        tiny.make_backbone(**options)


OPTIONS = {
    "plain": {},
    "other": {
        "scope": "chunk",
        "wrap": True,
        "merge": "mean",
        "position_embedding": None,
        "causal": False,
        "dropout": 0.1,
        "activation": "relu",
        "feed_forward_chunk_length": 10,
        "attention_layers": "lsh",
        "duplicates": "importance",
    },
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "axes": {"axial_shape": (5, 5, 4), "axial_dims": (4, 4, 8)},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_config_and_file(options, tmp_path):
    backbone = tiny.make_backbone(**OPTIONS[options])
    config = backbone.get_config()
    other = ReformerBackbone.from_config(config)
    assert other.get_config() == config
    path = str(tmp_path / "backbone.keras")
    backbone.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, ReformerBackbone)
    assert loaded.get_config() == config
    np.testing.assert_array_equal(call(loaded), call(backbone))
    states = zip(tiny.values(backbone), tiny.values(loaded), strict=True)
    assert all(np.array_equal(a, b) for a, b in states)


def test_older_files_without_seeds_load(monkeypatch, tmp_path):
    path = str(tmp_path / "backbone.keras")
    backbone = tiny.make_backbone(**tiny.SMALLEST)
    with monkeypatch.context() as patch:
        patch.setattr(ReformerBackbone, "_seed_states", lambda self: {})
        backbone.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(call(loaded), call(backbone))


def test_clone():
    backbone = tiny.make_backbone()
    # Keras clones any Functional model as a plain one, whose inputs are not
    # optional any more.
    clone = keras.models.clone_model(backbone)
    clone.set_weights(backbone.get_weights())
    np.testing.assert_array_equal(call(clone), call(backbone))


def test_number_of_positions_at_a_time_changes_nothing():
    backbone = tiny.make_backbone(feed_forward_chunk_length=10)
    other = tiny.make_backbone()
    other.set_weights(backbone.get_weights())
    np.testing.assert_allclose(call(backbone), call(other), atol=1e-5)


def test_length_known_while_running_only():
    backbone = tiny.make_backbone()
    expected = backbone(IDS).numpy()
    unknown = tf.TensorSpec((None, None), "int32")
    function = tf.function(backbone, input_signature=[unknown])
    for length in (37, 20, 8, 1):
        np.testing.assert_allclose(
            function(IDS[:2, :length]), expected[:2, :length], atol=1e-5
        )


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_quantization_finds_no_layer_that_is_not_built():
    backbone = tiny.make_backbone(position_embedding=None, **tiny.SMALLEST)
    backbone.quantize("int8")
    assert np.isfinite(call(backbone)).all()


def test_scan_blocks_of_its_sequence_is_kept():
    backbone = tiny.make_backbone(**tiny.SMALLEST)
    assert "sublayers" not in backbone.get_config()
    backbone.sequence.scan_blocks = False
    config = backbone.get_config()
    assert config["sublayers"] == {"sequence/scan_blocks": False}
    copy = ReformerBackbone.from_config(config)
    assert copy.sequence.scan_blocks is False
