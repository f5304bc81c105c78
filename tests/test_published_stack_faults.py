"""Faults of the published implementations that stacks here must not have.

Each test is named after its fault; see `test_published_faults.py`.
"""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import convert
from keras_reformer.layers import (
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)
from keras_reformer.ops.attention import hashing
from keras_reformer.ops.loops import tiling
from tests.support import published
from tests.support.tiny import make_backbone, make_ids, make_model, values

BATCH, LENGTH, DIM, CHUNK = 2, 13, 6, 4
ATTENTION = {
    "lsh": (LSHSelfAttention, {"num_buckets": 4, "num_hashes": 2}),
    "published": (
        LSHSelfAttention,
        {"num_buckets": [2, 4], "scope": "chunk", "wrap": True},
    ),
    "short": (LSHSelfAttention, {"num_buckets": 4, "exact_below": LENGTH}),
    "local": (LocalSelfAttention, {}),
}
KINDS = [
    pytest.param(kind, marks=pytest.mark.slow)
    if kind in ("short", "local")
    else kind
    for kind in ATTENTION
]


def draw(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return tf.constant(values.astype("float32"))


X = draw(BATCH, LENGTH, DIM)


def make_stack(kind="lsh", depth=2, dropout=0.2, dtype=None, **options):
    """Blocks of one kind of attention, with dropout in all places."""
    attention, arguments = ATTENTION[kind]

    def block():
        branches = (
            attention(
                2,
                3,
                chunk_length=CHUNK,
                dropout=dropout,
                dtype=dtype,
                **arguments,
            ),
            FeedForward(8, dropout=dropout, dtype=dtype),
        )
        return ReversibleBlock(
            *(
                PreNormalization(each, dropout=dropout, dtype=dtype, **options)
                for each in branches
            )
        )

    stack = ReversibleSequence([block() for _ in range(depth)], dtype=dtype)
    stack.build((BATCH, LENGTH, DIM))
    rng = np.random.default_rng(1)
    for variable in stack.trainable_variables:
        variable.assign_add(0.2 * rng.normal(size=variable.shape))
    return stack


def gradients(stack, loss=None):
    """Loss, and its gradients by the inputs and all weights."""
    loss = loss or (lambda x: tf.reduce_sum(tf.sin(stack(x, training=True))))
    with tf.GradientTape() as tape:
        tape.watch(X)
        total = loss(X)
    variables = [variable.value for variable in stack.trainable_variables]
    return [total, *tape.gradient(total, [X, *variables])]


def assert_equal_plain(stack, *arguments):
    """Rebuilding gives what plain backpropagation gives, from one state."""
    state = values(stack)
    stack.recompute = False
    expected = gradients(stack, *arguments)
    for variable, value in zip(stack.variables, state, strict=True):
        variable.assign(value)
    stack.recompute = True
    found = gradients(stack, *arguments)
    for one, other in zip(found, expected, strict=True):
        error = np.linalg.norm(one - other)
        assert error <= 1e-5 * max(1, np.linalg.norm(other))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_pass_draws_no_other_dropout_masks(kind):
    """The backward pass drew other masks: gradients off by 12 to 48 %."""
    stack = make_stack(kind)
    first = assert_equal_plain(stack)
    # Dropout is on: the next step is another function.
    second = gradients(stack)
    assert abs(float(first[0]) - float(second[0])) > 1e-3
    assert all(np.any(gradient) for gradient in first)


def test_hashing_does_not_reset_the_global_generators():
    """Hashing with a seed reset the user's own generator."""
    stack, drawn = make_stack(), []
    for calls in (0, 3):
        tf.random.set_seed(5)
        keras.utils.set_random_seed(5)
        for _ in range(calls):
            stack(X, training=True)
        drawn.append(
            [tf.random.uniform([]), np.random.rand(), keras.random.uniform([])]
        )
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("seed", [42, 43])
def test_no_layer_draws_from_the_systems_entropy(seed):
    """Each half layer drew from the system's entropy."""
    runs = []
    for number in (42, seed):
        keras.utils.set_random_seed(number)
        backbone = make_backbone(seed=None, dropout=0.1)
        keras.utils.set_random_seed(number)
        copy = type(backbone).from_config(backbone.get_config())
        runs.append(copy(make_ids(1, 20), training=True))
    assert np.array_equal(*runs) == (seed == 42)


def test_groups_of_chunks_do_not_rerun_with_the_last_buckets(monkeypatch):
    """All groups were run again with the buckets of the last."""
    stack = make_stack()
    state = values(stack)
    whole = gradients(stack)
    for variable, value in zip(stack.variables, state, strict=True):
        variable.assign(value)
    monkeypatch.setitem(tiling.TOKENS_IN_TILE, "cpu", CHUNK)
    found = assert_equal_plain(stack)
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_forward_pass_does_not_overwrite_the_first(kind):
    """The second overwrote the buckets and seeds of the first."""
    stack = make_stack(kind)

    def loss(x):
        one = stack(x, training=True)
        return tf.reduce_sum(one * tf.sin(stack(2 * x, training=True)))

    assert_equal_plain(stack, loss)


def test_another_number_of_rounds_does_not_crash():
    """A number of rounds that differed from the configured one crashed."""
    stack = make_stack()
    for rounds in (1, 5):
        for block in stack.blocks:
            block.attention.layer.num_hashes = rounds
        assert_equal_plain(stack)


def test_the_heads_bias_is_not_without_effect():
    """It was there and had no effect."""
    weights = published.language_model()
    weights["lm_head.bias"] = np.full(13, 100.0, "float32")
    model = convert.from_huggingface(published.CONFIG, weights)
    ids = np.arange(12).reshape(2, 6)
    with_bias = model(ids)
    model.head.bias.assign(np.zeros(13))
    np.testing.assert_allclose(with_bias - model(ids), 100.0, rtol=1e-4)


def activations():
    """How many tensors of the stack's own shape are alive."""
    gc.collect()
    return sum(
        # Not `isinstance`, which asks dead proxies what they stand for.
        issubclass(type(each), tf.Tensor)
        and each.shape == X.shape
        and each.dtype.is_floating
        for each in gc.get_objects()
    )


def test_no_cache_keeps_the_states_of_all_blocks():
    """A cache, on by default, kept the states of all blocks."""
    alive = []
    for depth in (1, 4):
        stack = make_stack(depth=depth)
        before = activations()
        with tf.GradientTape() as tape:
            tape.watch(X)
            output = stack(X, training=True)
        alive.append(activations() - before)
        assert tape.gradient(output, X).shape == X.shape
    assert alive[0] == alive[1] < 8
    logits = make_model()(make_ids(), training=True)
    assert isinstance(logits, tf.Tensor)


def test_a_mask_with_any_length_does_not_crash():
    """Padding by itself and positions given by the user crashed."""
    backbone = make_backbone(scope="chunk", wrap=True, local_chunk_length=6)
    for length in (1, 7, 25):
        ids = make_ids(2, length)
        mask = np.arange(length) < np.array([[length], [max(1, length - 3)]])
        inputs = {"token_ids": ids, "padding_mask": mask}
        for training in (False, True):
            output = backbone(inputs, training=training)
            assert output.shape[:2] == (2, length)
            assert np.isfinite(output).all()


@pytest.mark.parametrize(
    "length", [pytest.param(3, marks=pytest.mark.slow), LENGTH]
)
def test_skipped_blocks_do_not_lose_gradients_below_a_length(length):
    """Below a length they ran without gradients."""
    stack = make_stack(stochastic_depth=0.5, stochastic_depth_seed=3)

    def loss(x):
        return tf.reduce_sum(tf.sin(stack(x[:, :length], training=True)))

    sums = np.zeros(1 + len(stack.trainable_variables))
    for _ in range(4):
        found = assert_equal_plain(stack, loss)[1:]
        sums += [np.abs(gradient).sum() for gradient in found]
    assert (sums > 0).all()


@pytest.mark.parametrize(
    "dtype",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_streams_are_not_rebuilt_in_half_precision(dtype):
    """In half precision rebuilding 24 blocks was 1 to 10 % wrong."""
    stack = make_stack(depth=24, dtype=dtype)
    streams = X, draw(BATCH, LENGTH, DIM, seed=1)
    outputs = streams
    for block in stack.blocks:
        outputs = block(outputs)
        assert {stream.dtype for stream in outputs} == {tf.float32}
    for block in reversed(stack.blocks):
        outputs = block.inverse(outputs)
    for rebuilt, stream in zip(outputs, streams, strict=True):
        error = np.linalg.norm(rebuilt - stream) / np.linalg.norm(stream)
        print(f"{dtype}: rebuilt with a relative error of {error:.1e}")
        assert error < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_not_those_of_parameters_alone(kind):
    """Only parameters had gradients, and losses inside blocks had none."""
    stack = make_stack(kind)
    # As where only some layers are fine-tuned.
    stack.blocks[0].attention.layer.value.trainable = False
    stack.blocks[
        1
    ].feed_forward.layer.activity_regularizer = keras.regularizers.L2(0.3)

    def loss(x):
        """Of inputs made of other tensors, with losses from inside."""
        output = stack(tf.sin(1.5 * x), training=True)
        return tf.reduce_sum(tf.sin(output)) + sum(stack.losses)

    found = assert_equal_plain(stack, loss)
    assert all(np.any(gradient) for gradient in found)
    assert len(stack.losses) == 1
    without = gradients(stack, lambda x: loss(x) - sum(stack.losses))
    assert abs(float(without[0]) - float(found[0])) > 1e-3


@pytest.mark.parametrize("kind", ["lsh", "published"])
def test_the_backward_pass_does_not_hash_again(kind, monkeypatch):
    """A rebuilt vector, off by a rounding, may fall into another bucket."""
    stack, hash_vectors, calls = make_stack(kind), hashing.hash_vectors, []

    def hash_anew(vectors, *options):
        calls.append(vectors)
        buckets = hash_vectors(vectors, *options)
        return (buckets + len(calls)) % 4

    monkeypatch.setattr(hashing, "hash_vectors", hash_anew)
    gradients(stack)
    assert len(calls) == 2
