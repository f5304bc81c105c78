"""Documents packed into rows are, in every layer, documents in rows alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    PreNormalization,
    RelativePositionBias,
    ReversibleBlock,
    ReversibleSequence,
    RotaryEmbedding,
)
from tests.support import packed
from tests.support.executions import EXECUTIONS

LENGTH, DIM = 29, 6
SEGMENT_IDS = packed.make_segment_ids(1)


def lsh(**options):
    defaults = {
        "num_hashes": 2,
        "num_buckets": 4,
        "chunk_length": 4,
        "query_key_kernel_size": 3,
        "center_hashes": True,
    }
    layer = LSHSelfAttention(2, 4, **{**defaults, **options})
    layer.build((None, None, DIM))
    if layer.hash_center is not None:
        center = 0.2 * np.random.default_rng(3).normal(size=(2, 4))
        layer.hash_center.assign(center)
    return layer


def local(**options):
    return LocalSelfAttention(2, 4, **{"chunk_length": 4, **options})


def exact(**options):
    return MultiHeadAttention(2, 4, query_chunk_length=5, **options)


KINDS = {
    "lsh": lsh,
    "lsh, two chunks": lambda **options: lsh(num_chunks_before=2, **options),
    "lsh, discount": lambda **options: lsh(duplicates="discount", **options),
    "lsh, importance": lambda **options: lsh(
        duplicates="importance", center_hashes=False, **options
    ),
    "lsh, factors": lambda **options: lsh(num_buckets=[2, 4], **options),
    "local": local,
    "local, two chunks": lambda **options: local(
        num_chunks_before=2, **options
    ),
    "local, own chunk": lambda **options: local(num_chunks_before=0, **options),
    "exact": exact,
    "shared": lambda **options: exact(share_query_key=True, **options),
}


def make_layer(kind, causal=True, positions=True, **options):
    options = {"causal": causal, "seed": 0, "dtype": "float64", **options}
    if positions:
        options["rotary_embedding"] = RotaryEmbedding(dtype="float64")
        options["position_bias"] = RelativePositionBias(
            2, 8, 20, causal=causal, dtype="float64"
        )
    if not causal and not kind.startswith(("exact", "shared")):
        options["num_chunks_after"] = 1
    layer = KINDS[kind](**options)
    if not layer.built:
        layer.build((None, None, DIM))
    return layer


def make_inputs(seed, length=LENGTH):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, length, DIM)), rng.normal(size=(2, length, DIM))


def assert_packed_equals_separate(layer, seeds, executions=("eager",)):
    """Outputs and gradients of some packings, every second one masked."""

    def call(x, d_y, segment_ids, mask):
        return packed.call_and_gradients(
            layer, x, d_y, segment_ids=segment_ids, mask=mask
        )

    calls = [EXECUTIONS[name](call) for name in executions]
    for seed in seeds:
        segment_ids = packed.make_segment_ids(seed)
        mask = np.ones(segment_ids.shape, bool)
        if seed % 2:
            mask = packed.make_mask(seed, segment_ids)
        x, d_y = make_inputs(seed)
        expected = packed.separately(layer, x, d_y, segment_ids, mask)
        for each in calls:
            found = each(*map(tf.constant, (x, d_y, segment_ids, mask)))
            assert_close(found, expected)


def assert_close(found, expected):
    (y, gradients), (wanted, wanted_gradients) = found, expected
    pairs = zip([y, *gradients], [wanted, *wanted_gradients], strict=True)
    for each, other in pairs:
        np.testing.assert_allclose(each, other, atol=1e-6)


@pytest.mark.parametrize(
    "kind, causal", [("lsh", True), ("local", False), ("exact", True)]
)
def test_packed_equals_separate(kind, causal):
    assert_packed_equals_separate(make_layer(kind, causal), seeds=[1])


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_packings(kind, causal):
    layer = make_layer(kind, causal)
    assert_packed_equals_separate(layer, range(20), EXECUTIONS)


@pytest.mark.parametrize(
    "kind",
    [
        "lsh",
        pytest.param("local", marks=pytest.mark.slow),
        pytest.param("exact", marks=pytest.mark.slow),
    ],
)
def test_under_xla(kind):
    layer = make_layer(kind)
    x, _ = make_inputs(0)
    run = tf.function(layer, jit_compile=True, autograph=False)
    np.testing.assert_allclose(
        run(x, segment_ids=SEGMENT_IDS),
        layer(x, segment_ids=SEGMENT_IDS),
        atol=1e-12,
    )


@pytest.mark.parametrize(
    "kind", ["lsh", pytest.param("local", marks=pytest.mark.slow)]
)
def test_lengths_that_are_known_when_running(kind):
    layer = make_layer(kind)
    run = tf.function(
        lambda x, ids: layer(x, segment_ids=ids),
        input_signature=[
            tf.TensorSpec((None, None, DIM), tf.float64),
            tf.TensorSpec((None, None), tf.int64),
        ],
    )
    for length in (LENGTH, 7):
        x, _ = make_inputs(0, length)
        ids = packed.make_segment_ids(2, length=length).astype("int64")
        np.testing.assert_allclose(
            run(x, ids), layer(x, segment_ids=ids), atol=1e-12
        )


def test_only_changes_of_segment_ids_matter():
    layer, (x, _) = make_layer("lsh"), make_inputs(0)
    expected = layer(x, segment_ids=SEGMENT_IDS)
    np.testing.assert_array_equal(
        layer(x, segment_ids=7 * SEGMENT_IDS + 3), expected
    )
    one = layer(x, segment_ids=0 * SEGMENT_IDS + 5)
    np.testing.assert_allclose(one, layer(x), atol=1e-12)
    assert np.abs(one - expected).max() > 1e-2


# --- scope="chunk" ---


def chunk_layer():
    return make_layer("lsh", scope="chunk", center_hashes=False)


def test_windows_of_chunks_show_no_other_document():
    layer, (x, others) = chunk_layer(), make_inputs(0)
    y = np.asarray(layer(x, segment_ids=SEGMENT_IDS))
    for row, place in packed.documents(SEGMENT_IDS):
        changed = others.copy()
        changed[row, place] = x[row, place]
        again = np.asarray(layer(changed, segment_ids=SEGMENT_IDS))
        np.testing.assert_array_equal(again[row, place], y[row, place])


@pytest.mark.parametrize(
    "lengths, equal",
    [
        ((4, 20, 5), True),
        pytest.param((5, 19, 5), False, marks=pytest.mark.slow),
    ],
)
def test_windows_of_chunks_are_those_of_documents_at_chunk_borders(
    lengths, equal
):
    """Elsewhere the borders of chunks cut a document in other places."""
    layer, (x, d_y) = chunk_layer(), make_inputs(0)
    segment_ids = np.tile(np.repeat(range(3), lengths), (2, 1))
    y, gradients = packed.call_and_gradients(
        layer, x, d_y, segment_ids=segment_ids
    )
    expected, expected_gradients = packed.separately(layer, x, d_y, segment_ids)
    assert np.allclose(y, expected, atol=1e-6) == equal
    pairs = zip(gradients, expected_gradients, strict=True)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in pairs) == equal


# --- Reversible stacks ---


def make_sequence(kinds=("local", "lsh"), **options):
    def branch(layer):
        return PreNormalization(layer, dtype="float64")

    blocks = [
        ReversibleBlock(
            branch(make_layer(kind, positions=False)),
            branch(keras.layers.Dense(DIM, "tanh", dtype="float64")),
            dtype="float64",
        )
        for kind in kinds
    ]
    sequence = ReversibleSequence(
        blocks, merge="mean", dtype="float64", **options
    )
    sequence.build((None, None, DIM))
    return sequence


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [True, False])
def test_reversible_stacks_hand_segments_on(recompute):
    sequence = make_sequence(recompute=recompute)
    assert_packed_equals_separate(sequence, seeds=[1])


@pytest.mark.slow
def test_scanned_stacks(execution):
    """Both streams of training, whose blocks are the body of a loop."""
    sequence = make_sequence(kinds=("local", "lsh") * 2)
    x, d_y = make_inputs(1)
    state = [v.numpy() for v in sequence.variables]

    @execution
    def packed_in_training(x):
        return packed.call_and_gradients(
            sequence, x, d_y, segment_ids=SEGMENT_IDS, training=True
        )

    y, gradients = packed_in_training(x)
    for variable, value in zip(sequence.variables, state, strict=True):
        variable.assign(value)
    sequence.recompute = False
    expected, expected_gradients = packed.call_and_gradients(
        sequence, x, d_y, segment_ids=SEGMENT_IDS, training=True
    )
    np.testing.assert_allclose(y, expected, atol=1e-9)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_block_and_its_inverse():
    block = make_sequence().blocks[1]
    x, other = make_inputs(0)
    y = block((x, other), segment_ids=SEGMENT_IDS)
    x1, x2 = block.inverse(y, segment_ids=SEGMENT_IDS)
    np.testing.assert_allclose(x1, x, atol=1e-12)
    np.testing.assert_allclose(x2, other, atol=1e-12)


# --- Branches without segments ---


def test_a_branch_that_keeps_segments_from_attention_is_named_once():
    x, other = make_inputs(0)
    hiding = keras.Sequential([local(name="mixing")], name="hiding")
    feed_forward = keras.Sequential([keras.layers.Dense(DIM)])
    block = ReversibleBlock(PreNormalization(hiding), feed_forward)
    message = "branch `hiding` takes no `segment_ids`, so layer `mixing`"
    block((x, other))
    with pytest.warns(UserWarning, match=message) as found:
        block((x, other), segment_ids=SEGMENT_IDS)
        block((x, other), segment_ids=SEGMENT_IDS)
    assert len(found) == 1


# --- Refusals ---


@pytest.mark.parametrize(
    "segment_ids, received",
    [
        (SEGMENT_IDS[:, 1:], r"segment_ids.shape=\(2, 28\)"),
        (SEGMENT_IDS[0], r"segment_ids.shape=\(29,\)"),
        (SEGMENT_IDS.astype("float32"), "segment_ids.dtype=float"),
        (SEGMENT_IDS > 0, "segment_ids.dtype=bool"),
        (3, "segment_ids=3"),
    ],
    ids=["short", "no batch", "float", "bool", "number"],
)
def test_other_segment_ids_are_refused(segment_ids, received):
    x, _ = make_inputs(0)
    for kind in ("lsh", "local", "exact"):
        layer = make_layer(kind, positions=False)
        with pytest.raises(ValueError, match=f"Received: .*{received}"):
            layer(x, segment_ids=segment_ids)


@pytest.mark.parametrize(
    "layer, received",
    [
        (lambda: local(wrap=True), "Received: wrap=True"),
        (lambda: lsh(scope="chunk", wrap=True), "Received: wrap=True"),
        (
            lambda: lsh(
                scope="chunk", duplicates="importance", center_hashes=False
            ),
            "Received: scope='chunk', duplicates='importance'",
        ),
    ],
    ids=["local wrap", "lsh wrap", "importance"],
)
def test_what_documents_in_a_row_cannot_have(layer, received):
    x, _ = make_inputs(0)
    with pytest.raises(ValueError, match=received):
        layer()(x, segment_ids=SEGMENT_IDS)


def test_segments_are_of_one_sequence():
    layer, (x, value) = exact(), make_inputs(0)
    with pytest.raises(ValueError, match="segment_ids and another value"):
        layer(x, value, segment_ids=SEGMENT_IDS)


def test_nothing_to_see():
    for kind in ("lsh", "local", "exact"):
        layer = make_layer(kind)
        ids = np.zeros((2, 0), "int32")
        assert layer(np.zeros((2, 0, DIM)), segment_ids=ids).shape[1] == 0
