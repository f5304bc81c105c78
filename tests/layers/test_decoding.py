"""Attention layers decode from caches what a full pass gives."""

import keras
import numpy as np
import pytest

from keras_reformer.layers import (
    AlibiBias,
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    PreNormalization,
    RelativePositionBias,
    ReversibleBlock,
    ReversibleSequence,
    RotaryEmbedding,
)
from tests.support import reference, stepwise
from tests.support.stepwise import LENGTHS, gap

DIM = 12
HEADS = {"num_heads": 2, "key_dim": 6}
# Of prompts that are no longer and no shorter than each other.
EQUAL_LENGTHS = [6] * len(LENGTHS)


def make_inputs(length=41, dtype="float64"):
    rng = np.random.default_rng(1)
    return rng.normal(size=(len(LENGTHS), length, DIM)).astype(dtype)


def make_lsh(dtype="float64", **options):
    options = {
        "num_hashes": 2,
        "num_buckets": 4,
        "chunk_length": 4,
        "causal": True,
        "seed": 3,
        **options,
    }
    return LSHSelfAttention(**HEADS, dtype=dtype, **options)


def make_local(dtype="float64", **options):
    options = {"chunk_length": 5, "causal": True, "seed": 3, **options}
    return LocalSelfAttention(**HEADS, dtype=dtype, **options)


def make_exact(dtype="float64", **options):
    return MultiHeadAttention(**HEADS, causal=True, dtype=dtype, **options)


def assert_decodes_as_full_pass(layer, inputs, tolerance):
    expected = np.asarray(layer(inputs, training=False), "float64")
    found = stepwise.decode(layer, inputs, LENGTHS)
    assert gap(found, expected) < tolerance


def assert_decodes_as_growing_passes(layer, inputs, tolerance):
    """Prompts are of one length: padding may move the borders of chunks."""
    expected = stepwise.growing(layer, inputs)
    found = stepwise.decode(layer, inputs, EQUAL_LENGTHS)
    first = EQUAL_LENGTHS[0]
    assert gap(found[:, first:], expected[:, first:]) < tolerance


# --- Equal to one full pass ---

BUCKET = [
    {"num_hashes": 1},
    {"num_hashes": 2, "num_chunks_before": 2},
    {"num_hashes": 4, "discount_duplicates": True},
    {"num_hashes": 3, "num_buckets": [4, 2], "value_dim": 5, "use_bias": True},
    {"num_buckets": [2, 6], "chunk_length": 1, "discount_duplicates": True},
    {"num_chunks_before": 0},
    {"num_chunks_after": 1},
    {"num_buckets": [4, 2], "duplicates": "importance"},
]


@pytest.mark.parametrize("options", BUCKET, ids=str)
def test_bucket_scope(options):
    layer = make_lsh(**options)
    assert_decodes_as_full_pass(layer, make_inputs(), 1e-12)


@pytest.mark.parametrize("make", [make_lsh, make_local, make_exact])
def test_single_precision(make):
    inputs = make_inputs(dtype="float32")
    assert_decodes_as_full_pass(make("float32"), inputs, 1e-5)


@pytest.mark.parametrize(
    "scope", ["bucket", pytest.param("chunk", marks=pytest.mark.slow)]
)
def test_importance_in_single_precision(scope):
    layer = make_lsh("float32", scope=scope, duplicates="importance")
    inputs = make_inputs(23, "float32")
    assert_decodes_as_growing_passes(layer, inputs, 1e-5)


def test_exact_below():
    layer = make_lsh(exact_below=13)
    assert_decodes_as_growing_passes(layer, make_inputs(18), 1e-12)


@pytest.mark.parametrize(
    "make, options",
    [
        (make_local, {}),
        (make_local, {"num_chunks_before": 3, "chunk_length": 2}),
        (make_local, {"num_chunks_before": 0, "value_dim": 4}),
        (make_local, {"num_chunks_after": 1, "use_bias": True}),
        (make_local, {"wrap": True}),
        (make_exact, {"query_chunk_length": 8}),
        (make_exact, {"share_query_key": True, "value_dim": 4}),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_local_and_exact_attention(make, options):
    assert_decodes_as_full_pass(make(**options), make_inputs(), 1e-12)


POSITIONS = {
    "alibi": lambda: {"position_bias": AlibiBias(2)},
    "relative": lambda: {
        "position_bias": RelativePositionBias(
            2, causal=True, embeddings_initializer="normal"
        )
    },
    "rotary": lambda: {"rotary_embedding": RotaryEmbedding()},
}


@pytest.mark.parametrize(
    "options",
    [
        {"query_key_kernel_size": 2},
        # Longer than the shortest prompt.
        {"query_key_kernel_size": 9, "use_bias": True},
        {"query_key_kernel_size": 3, "rotary_embedding": RotaryEmbedding()},
    ],
    ids=str,
)
def test_convolution_of_query_keys(options):
    layer, inputs = make_lsh("float32", **options), make_inputs(dtype="float32")
    layer.build(inputs.shape)
    spread_out(layer.convolution.depthwise_kernel)
    assert_decodes_as_full_pass(layer, inputs, 1e-5)


def spread_out(kernel):
    """So that a token that is left out shows."""
    kernel.assign(np.random.default_rng(3).normal(size=kernel.shape))


@pytest.mark.parametrize(
    "wrap", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_chunk_scope_with_a_convolution(wrap):
    layer = make_lsh(scope="chunk", wrap=wrap, query_key_kernel_size=3)
    assert_decodes_as_growing_passes(layer, make_inputs(18), 1e-12)


@pytest.mark.parametrize(
    "make, positions",
    [
        (make_lsh, "alibi"),
        (make_lsh, "relative"),
        (make_lsh, "rotary"),
        (make_local, "relative"),
        (make_exact, "rotary"),
    ],
)
def test_positions_inside_attention(make, positions):
    layer = make("float32", **POSITIONS[positions]())
    inputs = make_inputs(dtype="float32")
    assert_decodes_as_full_pass(layer, inputs, 1e-5)


def test_rotations_of_ones_own():
    layer, inputs = make_lsh(), make_inputs()
    plain = np.asarray(layer(inputs))
    rng = np.random.default_rng(2)
    layer.rotations = rng.normal(size=(2, 6, 2, 2))
    assert gap(layer(inputs), plain) > 1e-2
    assert_decodes_as_full_pass(layer, inputs, 1e-12)


def test_reference():
    layer, inputs = make_lsh(use_bias=False), make_inputs(23)
    layer.build(inputs.shape)

    def heads(kernel):
        x = inputs @ np.asarray(kernel)
        return np.reshape(x, (*x.shape[:2], 2, 6)).transpose(0, 2, 1, 3)

    attended = reference.lsh_attention(
        heads(layer.query_key.kernel),
        heads(layer.value.kernel),
        np.asarray(layer.hash(inputs)),
        chunk_length=4,
        causal=True,
    )
    merged = attended.transpose(0, 2, 1, 3).reshape(*inputs.shape)
    expected = merged @ np.asarray(layer.attention_output.kernel)
    found = stepwise.decode(layer, inputs, LENGTHS)
    assert gap(found, expected) < 1e-12


@pytest.mark.parametrize("make", [make_lsh, make_local, make_exact])
def test_capacity_changes_nothing(make):
    layer, inputs = make(), make_inputs(20)
    layer(inputs)
    found = stepwise.decode(layer, inputs, LENGTHS, capacity=20)
    more = stepwise.decode(layer, inputs, LENGTHS, capacity=77)
    np.testing.assert_allclose(more, found, atol=1e-12)


@pytest.mark.parametrize("make", [make_lsh, make_local, make_exact])
def test_rows_alone(make):
    layer, inputs = make(), make_inputs(23)
    layer(inputs)
    together = stepwise.decode(layer, inputs, LENGTHS)
    alone = stepwise.decode(layer, inputs[2:3], LENGTHS[2:3])
    np.testing.assert_allclose(alone[0], together[2], atol=1e-12)


# --- Equal to full passes over the sequence so far ---

CHUNK = [
    {"num_hashes": 1},
    {"num_hashes": 1, "wrap": True},
    {"num_hashes": 4, "discount_duplicates": True, "exact_below": 7},
    {"wrap": True, "discount_duplicates": True, "exact_below": 0},
    {"num_buckets": [4, 2], "value_dim": 5, "exact_below": 0},
    {"duplicates": "importance", "exact_below": 13},
    {"num_chunks_before": 2, "wrap": True, "duplicates": "importance"},
    {"num_chunks_before": 2, "wrap": True, "exact_below": 0},
    {"num_chunks_before": 0, "num_chunks_after": 1, "exact_below": 0},
]


# What is slow has settings that the other cases have among them too.
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, marks=pytest.mark.slow)
        if len(options) < 3 or "exact_below" in options and "wrap" in options
        else options
        for options in CHUNK
    ],
    ids=str,
)
def test_chunk_scope(options):
    layer = make_lsh(scope="chunk", **options)
    assert_decodes_as_growing_passes(layer, make_inputs(18), 1e-12)


def test_chunk_scope_in_single_precision():
    layer = make_lsh("float32", scope="chunk", wrap=True)
    inputs = make_inputs(23, "float32")
    assert_decodes_as_growing_passes(layer, inputs, 1e-5)


@pytest.mark.parametrize(
    "duplicates", [pytest.param("count", marks=pytest.mark.slow), "importance"]
)
def test_chunk_scope_of_unequal_prompts(duplicates):
    layer = make_lsh(scope="chunk", exact_below=0, duplicates=duplicates)
    inputs = make_inputs(23)
    expected = stepwise.growing(layer, inputs)
    found = stepwise.decode(layer, inputs, LENGTHS)
    for row, length in enumerate(LENGTHS):
        assert gap(found[row, length:], expected[row, length:]) < 1e-12


# --- Stacks ---


def make_stack(*attentions, merge="concat", dtype="float64"):
    blocks = [
        ReversibleBlock(
            PreNormalization(attention, dtype=dtype),
            PreNormalization(FeedForward(20, dtype=dtype), dtype=dtype),
            dtype=dtype,
        )
        for attention in attentions
    ]
    return ReversibleSequence(blocks, merge=merge, dtype=dtype)


STACKS = {
    "lsh": lambda: [make_lsh(), make_lsh(num_hashes=1), make_lsh()],
    "exact": lambda: [make_exact(), make_exact(share_query_key=True)],
    "mixed": lambda: [
        make_local(),
        make_lsh(discount_duplicates=True),
        make_exact(share_query_key=True),
        make_local(num_chunks_before=2),
        make_lsh(num_buckets=[2, 2], query_key_kernel_size=2),
    ],
}


@pytest.mark.parametrize("name", STACKS)
def test_stacks(name):
    merge = "mean" if name == "mixed" else "concat"
    stack = make_stack(*STACKS[name](), merge=merge)
    assert_decodes_as_full_pass(stack, make_inputs(), 1e-12)


def test_branches_of_single_positions():
    stack = ReversibleSequence(
        [
            ReversibleBlock(
                make_lsh(),
                keras.layers.Dense(DIM, "tanh", dtype="float64"),
                dtype="float64",
            )
        ],
        dtype="float64",
    )
    assert_decodes_as_full_pass(stack, make_inputs(), 1e-12)


def test_chunk_scope_below_no_attention():
    lsh = make_lsh(scope="chunk", wrap=True, exact_below=0)
    stack = make_stack(make_local(), lsh)
    assert_decodes_as_growing_passes(stack, make_inputs(18), 1e-12)


def sequentially(stack, inputs, length):
    """Outputs behind prompts, of tokens whose states are computed once.

    The prompts' states are those of one pass over them. Then each token runs
    through the layers, an attention layer on all inputs that it ever had.
    """
    x = inputs[:, :length]
    streams, histories = (x, x), []
    for block in stack.blocks:
        histories.append(np.asarray(streams[1]))
        streams = block(streams, training=False)
    outputs = []
    attentions = [stepwise.last_of(b.attention) for b in stack.blocks]
    for position in range(length, inputs.shape[1]):
        x1 = x2 = inputs[:, position : position + 1]
        for index, block in enumerate(stack.blocks):
            history = np.concatenate([histories[index], x2], axis=1)
            histories[index] = history
            x1 = x1 + attentions[index](history)[:, None]
            x2 = x2 + np.asarray(block.feed_forward(x1))
        outputs.append(np.concatenate([x1, x2], axis=-1))
    return np.concatenate(outputs, axis=1)


def test_deep_chunk_scope_computes_states_once():
    layers = [
        make_lsh(scope="chunk", wrap=wrap, exact_below=0)
        for wrap in (False, True)
    ]
    stack = make_stack(*layers, make_local())
    inputs, length = make_inputs(18), EQUAL_LENGTHS[0]
    stack(inputs)
    found = stepwise.decode(stack, inputs, EQUAL_LENGTHS)[:, length:]
    assert gap(found, sequentially(stack, inputs, length)) < 1e-12
    # A full pass is another function.
    assert gap(found[:, -1], np.asarray(stack(inputs))[:, -1]) > 1e-2


# --- What cannot be decoded ---


@pytest.mark.parametrize(
    "layer",
    [
        make_lsh(causal=False),
        make_local(causal=False),
        MultiHeadAttention(2, 6),
    ],
)
def test_attention_to_later_tokens(layer):
    inputs = make_inputs(8)
    layer(inputs)
    with pytest.raises(ValueError, match="causal=False"):
        layer.prefill(inputs, np.ones(inputs.shape[:2], bool), 8)


def test_buckets_that_follow_the_length():
    layer, inputs = make_lsh(num_buckets=None), make_inputs(8)
    layer(inputs)
    with pytest.raises(ValueError, match="num_buckets"):
        layer.prefill(inputs, np.ones(inputs.shape[:2], bool), 8)
