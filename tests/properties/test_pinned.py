"""What random cases found, each as a case of its own."""

import keras
import numpy as np
import pytest

import keras_reformer
from tests.properties.holds import Case, assert_holds
from tests.support import published
from tests.support.tiny import SIZES, SMALLEST

HEADS = {"num_heads": 2, "key_dim": 2}
X = np.ones((2, 5, 4), "float32")
IDS = np.ones((2, 5), "int32")
TEXT = np.full((2, 5, 4), "a")
LSH = keras_reformer.LSHSelfAttention
LOCAL = keras_reformer.LocalSelfAttention
EXACT = keras_reformer.MultiHeadAttention
ATTENTION = (LSH, LOCAL, EXACT)


def _refused(make, options, message, *inputs, **call):
    """Asserts that making or calling a layer raises a named `ValueError`."""
    with pytest.raises(ValueError, match=message):
        make(**options)(*inputs or (X,), **call)


@pytest.mark.covering(1)
@pytest.mark.parametrize("make", ATTENTION)
@pytest.mark.parametrize("execution", ["eager", "graph", "xla"])
def test_empty_batches_and_sequences(make, execution):
    for shape in ((1, 0, 4), (0, 3, 4), (0, 0, 4)):
        inputs = (np.zeros(shape, "float32"),)
        assert_holds(Case(make, HEADS, inputs, {}, execution))


def test_empty_sequences_of_other_settings():
    empty = np.zeros((2, 0, 4), "float32")
    assert_holds(Case(LOCAL, {**HEADS, "wrap": True}, (empty,), {}))
    assert_holds(Case(EXACT, HEADS, (X, empty), {"training": True}))
    block = keras_reformer.ReversibleBlock(LSH(2, 2), LOCAL(2, 2))
    for shape in ((0, 9, 4), (0, 0, 4)):
        x = np.zeros(shape, "float32")
        assert_holds(Case(lambda: block, {}, ((x, x),), {}))


@pytest.mark.parametrize("make", ATTENTION)
@pytest.mark.parametrize(
    "mask",
    [
        np.ones((2, 6), bool),
        np.ones((1, 5), bool),
        np.ones(2, bool),
        np.array([["a"] * 5] * 2),
        "a",
        object,
    ],
)
def test_masks_of_another_shape_or_type(make, mask):
    _refused(make, HEADS, "Received: mask", mask=mask)


@pytest.mark.parametrize(
    "call",
    [
        {"value_mask": np.ones((2, 4), bool)},
        {"attention_mask": np.ones((5, 3), bool)},
        {"attention_mask": "a"},
        {"attention_bias": np.ones((1, 2, 5, 4), "float32")},
        {"attention_bias": "a"},
        {"use_causal_mask": "no"},
    ],
)
def test_arguments_of_cross_attention(call):
    (name,) = call
    _refused(EXACT, HEADS, f"Received: {name}", X, X[:, :3], **call)


def test_values_and_keys_that_do_not_fit():
    message = r"value.shape=\(1, 5, 4\)"
    _refused(EXACT, HEADS, message, X, X[:1])
    _refused(EXACT, HEADS, r"key.shape=\(2, 4, 4\)", X, X, X[:, :4])


def test_one_attention_mask_serves_a_batch():
    layer, mask = EXACT(**HEADS), np.tril(np.ones((1, 5, 5), bool))
    every = np.repeat(mask, 2, axis=0)
    np.testing.assert_array_equal(
        layer(X, attention_mask=mask), layer(X, attention_mask=every)
    )


@pytest.mark.parametrize(
    "argument, value",
    [
        ("causal", "no"),
        ("causal", np.zeros((2, 2))),
        ("use_bias", []),
        ("num_heads", 2**40),
        ("key_dim", 10**400),
        ("seed", 10**30),
        ("seed", "a"),
        ("kernel_initializer", "wrong"),
        ("kernel_initializer", object),
        ("kernel_regularizer", {"wrong": 1}),
        ("bias_constraint", 1.5),
        ("dropout", True),
    ],
)
@pytest.mark.parametrize("make", ATTENTION)
def test_arguments_of_attention(make, argument, value):
    options = {**HEADS, argument: value}
    _refused(make, options, f"Received: {argument}=")


@pytest.mark.parametrize(
    "make, options, message",
    [
        (keras_reformer.Dropout, {"rate": 0.1, "shared_axes": 1.5}, "=1.5"),
        (keras_reformer.Dropout, {"rate": 0.1, "shared_axes": "a"}, "='a'"),
        (keras_reformer.Dropout, {"rate": 0.1, "shared_axes": 3}, "=.3."),
        (keras_reformer.Dropout, {"rate": 0.1, "seed": 10**30}, "seed=1"),
        (keras_reformer.RotaryEmbedding, {"max_wavelength": 10**400}, "=1"),
        (keras_reformer.SinePositionEncoding, {"max_wavelength": 1e300}, "=1"),
        (keras_reformer.AlibiBias, {"num_heads": 2**40}, "num_heads=1"),
        (
            keras_reformer.FeedForward,
            {"intermediate_dim": 3, "activation": object()},
            "activation=<",
        ),
    ],
)
def test_arguments_of_other_layers(make, options, message):
    _refused(make, options, f"Received: .*{message}", training=True)


def test_initializers_without_a_clone():
    def ones(shape, dtype=None):
        return keras.ops.ones(shape, dtype)

    assert_holds(Case(LSH, {**HEADS, "kernel_initializer": ones}, (X,), {}))
    assert_holds(Case(LSH, {**HEADS, "kernel_initializer": None}, (X,), {}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras_reformer.RotaryEmbedding(),
        lambda: keras_reformer.FeedForward(3, chunk_length=2),
        lambda: keras_reformer.Dropout(0.1),
        lambda: keras_reformer.ReversibleBlock(LSH(2, 2), LOCAL(2, 2)),
    ],
)
def test_text_is_no_number(make):
    layer = make()
    pair = isinstance(layer, keras_reformer.ReversibleBlock)
    inputs = ((TEXT, TEXT),) if pair else (TEXT,)
    assert_holds(Case(lambda: layer, {}, inputs, {}))


def test_dropout_of_integers():
    make = keras_reformer.Dropout
    _refused(make, {"rate": 0.5}, "inputs.dtype=int32", IDS, training=True)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_feed_forward_without_a_batch(shape):
    make = keras_reformer.FeedForward
    x = np.ones(shape, "float32")
    _refused(make, {"intermediate_dim": 3}, "Received: input_shape", x)


@pytest.mark.parametrize("start", [-1, 1.5, "a", None, np.zeros(3, "int32")])
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras_reformer.AxialPositionEmbedding((4, 4), (1, 3)),
        lambda: keras_reformer.RotaryEmbedding(),
        lambda: keras_reformer.SinePositionEncoding(),
    ],
)
def test_start_indices(make, start):
    _refused(make, {}, "Received: start_index", start_index=start)


@pytest.mark.parametrize(
    "argument, value",
    [
        ("seed", "a"),
        ("dropout", [0.5]),
        ("attention_layers", 1.5),
        ("axial_shape", 3),
        ("axial_dims", [1, 2]),
        ("causal", np.zeros((2, 2))),
        ("local_num_chunks_after", 10**30),
        ("feed_forward_chunk_length", 0),
        ("kernel_initializer", np.zeros((2, 2))),
        ("tie_embeddings", "no"),
        ("hidden_dim", None),
    ],
)
def test_arguments_of_models(argument, value):
    options = {**SIZES, **SMALLEST, argument: value}
    with pytest.raises(ValueError, match=f"Received: .*{argument}="):
        keras_reformer.ReformerCausalLM(**options)


def test_models_on_nothing():
    model = keras_reformer.ReformerBackbone(**SIZES, position_bias=None)
    with pytest.raises(ValueError, match=r"token_ids of shape \(2, 0\)"):
        model(IDS[:, :0])
    assert model(IDS[:0, :1]).shape == (0, 1, 32)


def test_unknown_ids_are_named():
    model = keras_reformer.ReformerBackbone(**SIZES, **{})
    with pytest.raises(ValueError, match=r"Received: token_ids=\[99\]"):
        model(np.array([[1, 99]]))
    with pytest.raises(ValueError, match="Received: padding_mask of type str"):
        model({"token_ids": IDS, "padding_mask": "a"})


@pytest.mark.parametrize(
    "argument, value",
    [
        ("config", None),
        ("weights", None),
        ("weights", {3: X}),
        ("rotations", [1]),
        ("rotations", {"1": X}),
    ],
)
def test_arguments_of_the_converter(argument, value):
    options = {"config": published.CONFIG, "weights": published.body()}
    with pytest.raises(ValueError, match=f"Received: {argument}="):
        keras_reformer.convert.from_huggingface(**options | {argument: value})


def test_initializers_that_are_arrays():
    value = np.ones((4, 4), "float32")
    layer = keras_reformer.FeedForward(4, kernel_initializer=value)
    assert_holds(Case(lambda: layer, {}, (X,), {}))
    _refused(
        keras_reformer.FeedForward,
        {"intermediate_dim": 3, "kernel_initializer": value},
        "initializer",
    )


def test_text_that_keras_refuses():
    _refused(LSH, HEADS, "dtype='string'", TEXT)


@pytest.mark.parametrize(
    "make",
    [
        *(lambda make=make: make(**HEADS) for make in ATTENTION),
        lambda: keras_reformer.AxialPositionEmbedding((4, 4), (1, 3)),
        lambda: keras_reformer.FeedForward(3),
        lambda: keras_reformer.PreNormalization(LOCAL(2, 2)),
        lambda: keras_reformer.ReversibleBlock(LSH(2, 2), LOCAL(2, 2)),
        lambda: keras_reformer.ReversibleSequence(
            [keras_reformer.ReversibleBlock(LSH(2, 2), LOCAL(2, 2))]
        ),
        lambda: keras_reformer.RotaryEmbedding(),
        lambda: keras_reformer.SinePositionEncoding(),
    ],
)
@pytest.mark.parametrize("inputs", [None, np.float32(1), {"a": X}])
def test_inputs_without_a_shape(make, inputs):
    with pytest.raises(ValueError, match="input_shape|inputs|argument"):
        make()(inputs)


def test_a_known_length_of_zero_in_a_graph_of_any_batch():
    layer = LOCAL(**HEADS)
    inputs = keras.Input((0, 4))
    model = keras.Model(inputs, layer(inputs))
    assert model(np.zeros((3, 0, 4), "float32")).shape == (3, 0, 4)
