"""Weights of ordinary attention for layers of shared query-keys."""

import keras
import numpy as np
import pytest

import keras_reformer
from keras_reformer import convert
from tests.support import reference

HEADS, KEY_DIM, VALUE_DIM, DIM, LENGTH = 3, 5, 2, 7, 13
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, LENGTH, DIM)).astype("float32")


def draw(layer):
    """Gives every weight a value that no initializer gives."""
    for variable in layer.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape))
    return layer


def make_keras(**options):
    layer = keras.layers.MultiHeadAttention(
        HEADS, KEY_DIM, VALUE_DIM, **options
    )
    layer.build((None, None, DIM), (None, None, DIM))
    return draw(layer)


def make_ours(**options):
    layer = keras_reformer.MultiHeadAttention(
        HEADS, KEY_DIM, VALUE_DIM, **options
    )
    layer.build((None, None, DIM))
    return draw(layer)


def make_lsh(**options):
    return keras_reformer.LSHSelfAttention(
        HEADS,
        KEY_DIM,
        VALUE_DIM,
        **{"use_bias": True, "exact_below": LENGTH, **options},
    )


def make_shared(**options):
    return keras_reformer.MultiHeadAttention(
        HEADS, KEY_DIM, VALUE_DIM, share_query_key=True, **options
    )


def as_arrays(layer):
    """A Keras layer's weights as a mapping."""
    return {
        f"{kind}_{name}": np.asarray(
            getattr(getattr(layer, f"{kind}_dense"), name)
        )
        for kind in ("query", "key", "value", "output")
        for name in ("kernel", "bias")
    }


def flat(arrays):
    """The same without an axis of heads."""
    shapes = dict.fromkeys(arrays, (-1,))
    for kind in ("query", "key", "value"):
        shapes[f"{kind}_kernel"] = (DIM, -1)
    shapes["output_kernel"] = (-1, DIM)
    return {name: array.reshape(shapes[name]) for name, array in arrays.items()}


SOURCES = {
    "keras": lambda: make_keras(),
    "ours": lambda: make_ours(),
    "arrays": lambda: as_arrays(make_keras()),
    "flat arrays": lambda: flat(as_arrays(make_keras())),
}


def dense(source, kind):
    """A projection `(dim, heads * size)` and its bias."""
    if isinstance(source, dict):
        kernel, bias = source[f"{kind}_kernel"], source[f"{kind}_bias"]
    else:
        layer = getattr(source, f"{kind}_dense", None) or getattr(source, kind)
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    return kernel.reshape(DIM, -1), bias.reshape(-1)


@pytest.mark.parametrize("make", [make_lsh, make_shared])
@pytest.mark.parametrize("name", SOURCES)
def test_query_keys_are_the_mean_of_both(name, make):
    source = SOURCES[name]()
    layer = convert.from_multi_head_attention(source, make())
    for index in (0, 1):
        query, key = (dense(source, kind)[index] for kind in ("query", "key"))
        found = layer.query_key.get_weights()[index]
        np.testing.assert_allclose(found, (query + key) / 2, rtol=1e-6)
        found = layer.value.get_weights()[index]
        np.testing.assert_array_equal(found, dense(source, "value")[index])


def test_equal_projections_are_kept_to_the_last_bit():
    source, shared = make_keras(), make_shared()
    source.key_dense.set_weights(source.query_dense.get_weights())
    layer = make_lsh(exact_below=10**6)
    for each in (layer, shared):
        convert.from_multi_head_attention(source, each)
        for found, expected in zip(
            each.query_key.get_weights(),
            source.query_dense.get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(found.ravel(), expected.ravel())
    np.testing.assert_allclose(layer(X), shared(X), atol=1e-5)
    # The same by the equations, from the source's own arrays.
    heads = [
        np.einsum("btd,dhs->bhts", X, dense.kernel)
        + dense.bias.numpy()[:, None]
        for dense in (source.query_dense, source.value_dense)
    ]
    attended = reference.exact_shared_attention(*heads, causal=False)
    output = source.output_dense
    expected = np.einsum("bhts,hsd->btd", attended, output.kernel)
    expected += output.bias.numpy()
    np.testing.assert_allclose(layer(X), expected, atol=1e-4)


@pytest.mark.parametrize("make", [make_keras, make_ours])
def test_a_layer_of_separate_queries_and_keys_is_the_source(make):
    source = make()
    layer = keras_reformer.LocalSelfAttention(
        HEADS,
        KEY_DIM,
        VALUE_DIM,
        chunk_length=LENGTH,
        num_chunks_before=0,
        use_bias=True,
    )
    convert.from_multi_head_attention(source, layer)
    np.testing.assert_allclose(layer(X), source(X, X), atol=1e-5)


def test_a_layer_without_biases():
    source = make_keras(use_bias=False)
    layer = convert.from_multi_head_attention(source, make_lsh(use_bias=False))
    np.testing.assert_array_equal(
        layer.value.kernel, np.reshape(source.value_dense.kernel, (DIM, -1))
    )


def test_what_does_not_fit_is_listed_and_nothing_is_set():
    layer = make_lsh()
    layer.build((None, None, DIM))
    before = layer.get_weights()
    arrays = as_arrays(make_keras())
    arrays["extra_kernel"] = arrays.pop("key_kernel")
    arrays["output_kernel"] = np.zeros((HEADS, VALUE_DIM + 1, DIM))
    with pytest.raises(ValueError) as error:
        convert.from_multi_head_attention(arrays, layer)
    message = str(error.value)
    assert "missing: key_kernel (7, 15)" in message
    assert "left over: extra_kernel (7, 3, 5)" in message
    assert "output_kernel (3, 3, 7) instead of (6, 7)" in message
    for one, other in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: make_keras(), r"left over: query_bias \(3, 5\)"),
        # Keras 3.13 has no such argument, and says so itself.
        (
            lambda: make_keras(use_gate=True),
            "left over: .*gate|Unrecognized .*use_gate",
        ),
        (lambda: keras.layers.MultiHeadAttention(2, 3), "built layer"),
        (dict, "`query_kernel`"),
    ],
)
def test_sources_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        convert.from_multi_head_attention(make(), make_lsh(use_bias=False))


def test_targets_that_are_refused():
    with pytest.raises(ValueError, match="layer=Dense"):
        convert.from_multi_head_attention(make_keras(), keras.layers.Dense(3))
