"""Faults of the published implementations that attention here must not have.

Each test is named after its fault. Those of whole stacks and models are in
`test_published_stack_faults.py`.
"""

import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.layers import (
    AxialPositionEmbedding,
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    MultiHeadAttention,
    RotaryEmbedding,
)
from keras_reformer.ops.attention.hashing import hash_vectors
from keras_reformer.ops.attention.sorting import sort_by_bucket

BATCH, HEADS, KEY_DIM, DIM, CHUNK, LENGTH = 2, 3, 4, 7, 4, 13
PUBLISHED = {"scope": "chunk", "wrap": True, "exact_below": 0}


def lsh(**options):
    sizes = {"num_buckets": 4, "num_hashes": 3, "chunk_length": CHUNK}
    return LSHSelfAttention(HEADS, KEY_DIM, **{**sizes, "seed": 1, **options})


def local(**options):
    return LocalSelfAttention(HEADS, KEY_DIM, chunk_length=CHUNK, **options)


def exact(**options):
    return MultiHeadAttention(HEADS, KEY_DIM, query_chunk_length=5, **options)


LAYERS = {
    "bucket": lsh,
    "published": lambda **options: lsh(**PUBLISHED, **options),
    "local": local,
    "exact": exact,
}


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


def draw(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return values.astype("float32")


X = draw(BATCH, LENGTH, DIM)


def with_constant_values(layer):
    """Gives every token a value of ones, and passes them on."""
    layer.build((None, None, DIM))
    for dense, kernel, bias in (
        (layer.value, 0.0, 1.0),
        (layer.attention_output, 1 / (HEADS * KEY_DIM), 0.0),
    ):
        dense.kernel.assign(tf.fill(dense.kernel.shape, kernel))
        dense.bias.assign(tf.fill(dense.bias.shape, bias))
    return layer


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("causal", [True, False])
def test_mask_constants_do_not_change_the_sum_of_weights(make, causal, dtype):
    """Large constants for masks left sums of keys, 4 or 8 times the value."""
    layer = make(causal=causal, use_bias=True, dtype=dtype)
    layer = with_constant_values(layer)
    mask = np.ones((BATCH, LENGTH), bool)
    mask[0, 5:], mask[1, :-1] = False, False
    for each in (None, mask):
        output = np.asarray(layer(X, mask=each), "float32")
        valid = np.ones_like(mask) if each is None else each
        np.testing.assert_allclose(output[valid], 1.0, rtol=2e-2)
        assert (output[~valid] == 0).all()


@pytest.mark.covering(2)
@pytest.mark.parametrize("rounds", [1, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["bucket", "published"])
def test_the_first_token_is_not_summed_over_rounds(name, dtype, rounds):
    """In half precision it had that of all rounds added up."""
    layer = LAYERS[name](causal=True, num_hashes=rounds, dtype=dtype)
    output = np.asarray(layer(X), "float32")
    own = layer.attention_output(layer.value(tf.cast(X, dtype)))
    np.testing.assert_allclose(
        output[:, 0], np.asarray(own, "float32")[:, 0], rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("hidden", [[0], [1], [0, 1], [0, 1, 2, 3, 4]])
def test_left_padding_is_not_visible(make, hidden):
    """Masks as signs of positions let the first two positions through."""
    mask = np.ones((BATCH, LENGTH), bool)
    mask[:, hidden] = False
    layer = make()
    other = np.where(mask[..., None], X, 9.0)
    expected = np.asarray(layer(X, mask=mask))
    found = np.asarray(layer(other, mask=mask))
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-6)


def test_cross_attention_does_not_penalise_valid_keys():
    """Valid keys of a source were penalised, so each weighed one."""
    layer = with_constant_values(exact())
    mask = np.arange(LENGTH) < np.array([[5], [LENGTH]])
    output = layer(X[:, :3], X, value_mask=mask)
    np.testing.assert_allclose(output, np.ones((BATCH, 3, DIM)), rtol=1e-5)
    layer, other = exact(), np.where(mask[..., None], X, 9.0)
    np.testing.assert_allclose(
        layer(X[:, :3], other, value_mask=mask),
        layer(X[:, :3], X, value_mask=mask),
        atol=1e-6,
    )


@pytest.mark.parametrize("scope", ["bucket", "chunk"])
def test_the_first_length_does_not_fix_the_number_of_buckets(scope):
    """It was written into the configuration that all layers share."""
    layers = [lsh(num_buckets=None, scope=scope) for _ in range(2)]
    for layer in layers:
        layer.build((None, None, DIM))
    layers[1].set_weights(layers[0].get_weights())
    config = layers[0].get_config()
    layers[0](X[:, :2])
    long = draw(BATCH, 10 * CHUNK + 1, DIM)
    np.testing.assert_array_equal(layers[0](long), layers[1](long))
    assert layers[0].get_config() == config
    assert len(np.unique(layers[0].hash(long))) > 4


@pytest.mark.parametrize("shape", [(16,), (4, 4), (2, 3, 3), (2, 2, 2, 2)])
def test_more_than_two_axes_of_positions_do_not_crash(shape):
    """More than two axes crashed, and training took full tables only."""
    layer = AxialPositionEmbedding(shape, [2] * len(shape))
    dim = 2 * len(shape)
    whole = np.asarray(layer(tf.zeros((1, np.prod(shape), dim))))
    for length in (1, 3, LENGTH, np.prod(shape)):
        part = layer(tf.zeros((1, length, dim)), training=True)
        np.testing.assert_array_equal(part, whole[:, :length])


def test_chunks_that_do_not_divide_the_length_do_not_crash():
    """Chunk sizes that did not divide the length were an error."""
    layer = FeedForward(5, chunk_length=CHUNK)
    chunked = layer(X)
    layer.chunk_length = None
    np.testing.assert_allclose(chunked, layer(X), atol=1e-6)


def test_short_inputs_do_not_lose_rotary_positions(make):
    """Exact attention of short inputs left rotary positions out."""
    order = np.random.default_rng(2).permutation(LENGTH)
    for rotary in (None, RotaryEmbedding()):
        layer = make(rotary_embedding=rotary)
        if hasattr(layer, "exact_below"):
            layer.exact_below = LENGTH
        elif hasattr(layer, "chunk_length"):
            layer.chunk_length = LENGTH
        moved = np.asarray(layer(X[:, order]))
        difference = abs(moved - np.asarray(layer(X))[:, order]).max()
        assert (difference > 1e-2) == (rotary is not None)


def test_padding_is_not_hashed_like_data(make):
    """Padding was hashed like data and shared its buckets."""
    # Also in between, where padding would push others out of a window.
    mask = np.random.default_rng(3).random((BATCH, LENGTH)) < 0.6
    layer = make()
    expected = np.asarray(layer(X, mask=mask))[mask]
    for seed in (1, 2):
        other = np.where(mask[..., None], X, 5 * draw(*X.shape, seed=seed))
        found = np.asarray(layer(other, mask=mask))[mask]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["bucket", "local", "exact"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_does_not_change_who_sees_whom(name, causal):
    """Looking round the end, a padded sequence was another one."""
    layer = LAYERS[name](causal=causal)
    expected = layer(X)
    for extra in (1, CHUNK, 3 * CHUNK - 1):
        padded = np.concatenate([X, draw(BATCH, extra, DIM)], axis=1)
        mask = np.arange(LENGTH + extra) < np.full((BATCH, 1), LENGTH)
        found = layer(padded, mask=mask)[:, :LENGTH]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("wrap", [False, True])
def test_first_and_last_chunk_are_not_joined(wrap):
    """A layer that looks both ways joined them."""
    layer = local(num_chunks_after=1, wrap=wrap)
    x = draw(1, 5 * CHUNK, DIM)
    other = np.concatenate([x[:, :-1], x[:, -1:] + 1], axis=1)
    change = abs(np.asarray(layer(x)) - np.asarray(layer(other)))[0].max(-1)
    assert (change[:CHUNK] > 0).all() == wrap
    assert (change[CHUNK : 3 * CHUNK] == 0).all()
    assert (change[3 * CHUNK :] > 0).all()


@pytest.mark.parametrize(
    "masked", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_sort_keys_of_half_a_million_tokens_do_not_overflow(masked):
    """One int32 of bucket, round and position overflowed."""
    length, rounds, factors = 524288, 4, (64, 128)
    rng = np.random.default_rng(0)
    # Small integers, so that both sides compute the same to the last bit.
    vectors = rng.integers(-50, 50, (length, 3)).astype("float32")
    rotations = rng.integers(-50, 50, (3, rounds, 96)).astype("float32")
    mask = rng.random(length) < 0.9 if masked else None
    buckets = hash_vectors(
        tf.constant(vectors[None, None]),
        tf.constant(rotations[None]),
        factors,
        None if mask is None else tf.constant(mask[None]),
    )
    orders = sort_by_bucket(buckets, 64 * 128 + 1).numpy()[0, 0]
    for index in range(rounds):
        expected, column = 0, 0
        for factor, stride in zip(factors, (1, 64), strict=True):
            columns = slice(column, column + factor // 2)
            rotated = vectors @ rotations[:, index, columns]
            both = np.concatenate([rotated, -rotated], axis=-1)
            expected = expected + stride * both.argmax(-1)
            column += factor // 2
        if masked:
            expected = np.where(mask, expected, 64 * 128)
        np.testing.assert_array_equal(buckets[0, 0, index], expected)
        np.testing.assert_array_equal(
            orders[index], expected.argsort(kind="stable")
        )


def test_a_bias_in_attention_does_not_crash(make):
    """A bias in LSH attention crashed."""
    layer = make(use_bias=True)
    layer.build(X.shape)
    dense = [layer.value, layer.attention_output]
    dense += [getattr(layer, "query_key", None) or layer.query]
    biases = [each.bias.value for each in dense]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.sin(layer(X)))
    for gradient in tape.gradient(loss, biases):
        assert np.any(gradient)


def test_short_inputs_are_not_scored_otherwise():
    """Below a length, queries and keys were scored otherwise."""
    layer = lsh(**PUBLISHED | {"wrap": False})
    layer.num_hashes, layer.chunk_length = 1, LENGTH
    hashed = layer(X)
    layer.exact_below = LENGTH
    np.testing.assert_allclose(hashed, layer(X), atol=1e-6)


def operations(function, *arguments):
    """All operations of a traced function and of those that it calls."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    definition = graph.as_graph_def()
    yield from definition.node
    for each in definition.library.function:
        yield from each.node_def


def test_gradients_of_the_order_do_not_add_up_rows(make):
    """A gather's own gradient adds up rows one by one."""
    layer = make(causal=True)
    layer.build(X.shape)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(loss, [x, *layer.trainable_variables])

    found = list(operations(step, tf.constant(X)))
    assert any(node.op in ("GatherV2", "BatchMatMulV2") for node in found)
    for node in found:
        assert "Segment" not in node.op
        if "Scatter" in node.op:  # of ranks alone
            kinds = {
                node.attr[name].type for name in ("T", "Tindices", "dtype")
            }
            assert tf.float32.as_datatype_enum not in kinds, node


def test_hashing_is_not_differentiated():
    """Buckets are choices, not functions to be differentiated."""
    vectors = tf.constant(draw(1, 1, LENGTH, KEY_DIM))
    rotations = tf.constant(draw(1, KEY_DIM, 1, 2))
    with tf.GradientTape() as tape:
        tape.watch([vectors, rotations])
        buckets = hash_vectors(vectors, rotations, (4,))
        moved = vectors * tf.cast(buckets, tf.float32)[:, :, 0, :, None]
    gradients = tape.gradient(moved, [vectors, rotations])
    np.testing.assert_array_equal(
        gradients[0], np.broadcast_to(buckets[0, 0, 0, :, None], vectors.shape)
    )
    assert gradients[1] is None


@pytest.mark.covering(1)
@pytest.mark.parametrize("name", ["bucket", "local", "exact"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_positions_beyond_256_are_not_rounded_together(name, dtype):
    """In bfloat16 they are equal, and tokens saw the next one."""
    length, last = 701, 600
    layer = LAYERS[name](causal=True, dtype=dtype)
    x = draw(1, length, DIM)
    other = np.concatenate([x[:, : last + 1], -x[:, last + 1 :]], axis=1)
    one, two = (np.asarray(layer(each), "float32") for each in (x, other))
    np.testing.assert_array_equal(one[:, : last + 1], two[:, : last + 1])
    assert np.any(one[:, last + 1 : last + 4] != two[:, last + 1 : last + 4])


@pytest.mark.parametrize(
    "options",
    [
        {"axial_pos_shape": [8, 8]},
        {"position_embedding": "learned", "axial_shape": [8, 8]},
        {"position_embedding": "rotary", "axial_dims": [4, 4]},
        {"position_embedding": "axial_pos"},
        {"attention_layers": ("local", "full")},
    ],
)
def test_arguments_without_effect_are_not_accepted(options):
    """Axial positions were silently lost where another name was unset."""
    name = list(options)[-1]
    with pytest.raises((TypeError, ValueError), match=name):
        keras_reformer.ReformerBackbone(11, 1, 2, 8, 8, 64, **options)
    with pytest.raises((TypeError, ValueError), match="n_hashes"):
        lsh(n_hashes=2)
