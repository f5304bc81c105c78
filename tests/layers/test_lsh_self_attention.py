import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LSHSelfAttention
from tests.support import reference
from tests.support.layer_checks import check_layer
from tests.support.lsh_layers import (
    BATCH,
    CHUNK,
    DIM,
    HEADS,
    KEY_DIM,
    equations,
    from_heads,
    into_heads,
    make_inputs,
    make_layer,
    make_mask,
    make_rotations,
)

BUCKET = {"scope": "bucket"}
CHUNKS = {"scope": "chunk", "exact_below": 0}
WRAPPED = {**CHUNKS, "wrap": True}
EXACT = {"exact_below": 10**6}
KINDS = {"bucket": BUCKET, "chunk": CHUNKS, "wrap": WRAPPED, "exact": EXACT}
LENGTHS = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 13, 23]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, "count"),
        ({"discount_duplicates": True}, "discount"),
        ({"duplicates": "discount"}, "discount"),
        ({"discount_duplicates": True, "duplicates": "discount"}, "discount"),
        ({"duplicates": "importance"}, "importance"),
    ],
)
def test_duplicates_have_an_older_name(options, expected):
    layer = make_layer(**options)
    copy = LSHSelfAttention.from_config(layer.get_config())
    for each in (layer, copy):
        assert each.duplicates == expected
        assert each.discount_duplicates == (expected == "discount")
    assert copy.get_config() == layer.get_config()
    changed = layer.get_config() | {"discount_duplicates": False}
    if expected == "discount":
        assert LSHSelfAttention.from_config(changed).duplicates == "count"


@pytest.mark.parametrize(
    "options",
    [
        {"causal": True, "duplicates": "importance", "num_buckets": [4, 2]},
        pytest.param(
            {"causal": True, "dropout": 0.1, "exact_below": 12},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "scope": "chunk",
                "wrap": True,
                "num_buckets": [4, 6],
                "discount_duplicates": True,
                "num_hashes": 2,
                "use_bias": False,
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_layer_is_at_home_in_keras(options):
    check_layer(
        lambda dtype=None: make_layer(dtype=dtype, **options),
        (BATCH, 13, DIM),
        masks=[make_mask(13)],
    )


@pytest.mark.covering(1)
@pytest.mark.parametrize(
    "options, factors",
    [
        ({**BUCKET, "causal": True}, 4),
        ({**BUCKET, "num_chunks_after": 1, "discount_duplicates": True}, 2),
        ({**BUCKET, "num_chunks_before": 2}, [4, 6]),
        ({**BUCKET, "duplicates": "importance"}, [4, 6]),
        ({**WRAPPED, "duplicates": "importance"}, 6),
        ({**CHUNKS, "causal": True}, [2, 4]),
        ({**WRAPPED, "causal": True}, 6),
        ({**WRAPPED, "num_chunks_after": 1}, [2, 2, 2]),
    ],
)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_equations(options, factors, length, masked):
    layer = make_layer(num_buckets=factors, dtype="float64", **options)
    x = make_inputs(length, "float64")
    rotations = make_rotations(factors)
    mask = make_mask(length) if masked else None
    output = layer(x, mask=mask, rotations=rotations)
    expected = equations(layer, x, rotations, mask)
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 2, 13])
@pytest.mark.parametrize("masked", [False, True])
def test_exact_below_is_exact_attention(causal, length, masked):
    layer = make_layer(causal=causal, exact_below=13, dtype="float64")
    x = make_inputs(length, "float64")
    mask = make_mask(length) if masked else None
    output = layer(x, mask=mask)
    attended = reference.exact_shared_attention(
        into_heads(layer.query_key, x),
        into_heads(layer.value, x),
        causal=causal,
        mask=mask,
    )
    np.testing.assert_allclose(output, from_heads(layer, attended), atol=1e-12)


def test_exact_below_of_each_scope():
    """`None` is a chunk's length for chunks, as published, else never."""
    for scope, longest in (("bucket", 0), ("chunk", CHUNK)):
        layer = make_layer(scope=scope, num_hashes=1)
        for length in (3, CHUNK, CHUNK + 1):
            x = make_inputs(length)
            layer.exact_below = None
            output = layer(x)
            layer.exact_below = length if length <= longest else 0
            np.testing.assert_array_equal(output, layer(x))
            # One sparse round is far from exact attention.
            layer.exact_below = length
            is_exact = np.allclose(output, layer(x), atol=1e-6)
            assert is_exact == (length <= longest)


# --- Causality and masks ---


@pytest.mark.covering(1)
@pytest.mark.parametrize("kind", ["bucket", "exact"])
@pytest.mark.parametrize("length", [5, 8, 23])
def test_what_comes_later_changes_nothing(kind, length):
    layer = make_layer(causal=True, **KINDS[kind])
    x = make_inputs(length)
    expected = layer(x)
    if length > 8:  # one trace for all lengths
        layer = tf.function(
            layer,
            input_signature=[tf.TensorSpec((None, None, DIM))],
            autograph=False,
        )
    for kept in range(1, length):
        changed = make_inputs(length, seed=kept)
        changed[:, :kept] = x[:, :kept]
        added = np.concatenate([changed, changed], axis=1)
        for other in (changed, added, x[:, :kept]):
            np.testing.assert_allclose(
                layer(other)[:, :kept], expected[:, :kept], atol=1e-6
            )


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_by_what_comes_later_is_zero(kind):
    layer = make_layer(causal=True, **KINDS[kind])
    x = tf.constant(make_inputs(13))
    for last in (0, 2, 3, 4, 7, 10):
        with tf.GradientTape() as tape:
            tape.watch(x)
            earlier = tf.reduce_sum(layer(x)[:, : last + 1] ** 2)
        gradient = tape.gradient(earlier, x).numpy()
        assert (gradient[:, last + 1 :] == 0).all()
        assert (gradient[:, : last + 1] != 0).any(axis=-1).any()


@pytest.mark.covering(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [5, 13])
def test_contents_of_masked_tokens_change_nothing(kind, causal, length):
    layer = make_layer(causal=causal, **KINDS[kind])
    x, mask = make_inputs(length), make_mask(length)
    other = np.where(mask[..., None], x, 1e3 * make_inputs(length, seed=1))
    expected, output = layer(x, mask=mask), layer(other, mask=mask)
    np.testing.assert_allclose(output[mask], expected[mask], atol=1e-6)
    nothing = layer.attention_output.bias.numpy()
    np.testing.assert_allclose(output[~mask] - nothing, 0, atol=1e-6)


@pytest.mark.covering(2)
@pytest.mark.parametrize("kind", ["bucket", "exact"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [1, 3, 4, 12])
def test_the_amount_of_padding_changes_nothing(kind, causal, padding):
    layer = make_layer(causal=causal, num_chunks_after=1, **KINDS[kind])
    x = make_inputs(11)
    padded = np.concatenate([x, make_inputs(padding, seed=1)], axis=1)
    mask = np.arange(11 + padding) < 11
    output = layer(padded, mask=np.array([mask] * BATCH))
    np.testing.assert_allclose(output[:, :11], layer(x), atol=1e-6)


@pytest.mark.covering(2)
@pytest.mark.parametrize("policy", ["bfloat16", "float16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["bucket", "chunk", "exact"])
@pytest.mark.parametrize("num_hashes", [1, 8])
def test_first_causal_token_gets_its_own_value(policy, kind, num_hashes):
    layer = make_layer(
        causal=True, num_hashes=num_hashes, dtype=policy, **KINDS[kind]
    )
    x = tf.constant(make_inputs(13))
    output = layer(x)
    x = tf.cast(x, layer.compute_dtype)
    own = layer.attention_output(layer.value(x))
    np.testing.assert_array_equal(
        *(tf.cast(one[:, 0], "float32") for one in (output, own))
    )


def test_a_token_alone_in_all_rounds_gets_its_own_value():
    layer = make_layer(dtype="float64")
    layer.build((None, None, DIM))
    layer.rotations = np.eye(KEY_DIM)[None, :, None, :2] * np.ones(
        (HEADS, 1, 3, 1)
    )
    layer.query_key.kernel.assign(np.eye(DIM)[:, np.arange(15) % 5])
    layer.query_key.bias.assign(np.zeros(15))
    x = np.zeros((1, 5, DIM))
    x[0, :, 0] = [1, 1, -1, 1, 1]  # the middle one has a bucket of its own
    x[0, :, 5] = np.arange(5)
    output = layer(x)
    own = from_heads(layer, into_heads(layer.value, x))
    np.testing.assert_allclose(output[:, 2], own[:, 2], atol=1e-12)
    assert not np.allclose(output[:, 1], own[:, 1])
