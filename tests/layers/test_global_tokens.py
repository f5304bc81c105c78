"""`num_global_tokens`: the first tokens, which every query sees."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    AlibiBias,
    LocalSelfAttention,
    LSHSelfAttention,
    RelativePositionBias,
)
from keras_reformer.models import ReformerBackbone
from keras_reformer.ops import tracing
from keras_reformer.ops.loops.tiling import set_tokens_in_tile
from tests.support import stepwise, tiny
from tests.support.finite_differences import check_finite_differences
from tests.support.layer_checks import check_layer
from tests.support.stepwise import LENGTHS

GLOBAL, LENGTH, DIM, CHUNK = 3, 23, 12, 4
MASK = tf.constant(np.arange(LENGTH) < np.array([[23], [17], [2], [0]]))
LOCAL = functools.partial(LocalSelfAttention, 2, 6, chunk_length=CHUNK)
LSH = functools.partial(
    LSHSelfAttention, 2, 6, chunk_length=CHUNK, num_buckets=4, num_hashes=2
)
SCOPES = [
    {"scope": "bucket"},
    {"scope": "bucket", "duplicates": "importance"},
    {"scope": "chunk", "exact_below": 0},
    pytest.param(
        {"scope": "chunk", "exact_below": 0, "duplicates": "importance"},
        marks=pytest.mark.slow,
    ),
]


@pytest.fixture(autouse=True)
def small_tiles():
    """5 queries of each row in a step, the last one's not all there."""
    set_tokens_in_tile(40)
    yield
    set_tokens_in_tile(None)


def make(kind, causal, **options):
    return kind(
        causal=causal,
        num_chunks_after=0 if causal else 1,
        num_global_tokens=GLOBAL,
        seed=3,
        dtype="float64",
        **options,
    )


def make_inputs():
    rng = np.random.default_rng(1)
    return tf.constant(rng.normal(size=(len(LENGTHS), LENGTH, DIM)))


def projected(layer, x, name):
    """A projection's heads `(batch, heads, length, size)`."""
    heads = getattr(layer, name)(x).numpy()
    return heads.reshape(*heads.shape[:2], 2, -1).transpose(0, 2, 1, 3)


def outputs_of(layer, weights, value):
    merged = (weights @ value).transpose(0, 2, 1, 3)
    shape = (*merged.shape[:2], -1)
    return layer.attention_output(merged.reshape(shape)).numpy()


def softmax(scores):
    """Rows of nothing but `-inf` are zero."""
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


@pytest.mark.parametrize("causal", [True, False])
def test_local_attention_is_one_softmax(causal):
    layer, x = make(LOCAL, causal), make_inputs()
    found = layer(x, mask=MASK)
    query, key, value = (
        projected(layer, x, name) for name in ("query", "key", "value")
    )
    rows, columns = np.arange(LENGTH)[:, None], np.arange(LENGTH)
    distance = rows // CHUNK - columns // CHUNK
    visible = (distance <= 1) & (distance >= (0 if causal else -1))
    visible |= columns < GLOBAL
    # Global tokens see all tokens, where that is not the future.
    visible = visible & (columns <= rows) if causal else visible | (rows < 3)
    mask = MASK.numpy()[:, None]
    visible = visible & mask[..., None, :] & mask[..., None]
    scores = query @ key.swapaxes(2, 3) / 6**0.5
    weights = softmax(np.where(visible, scores, -np.inf))
    expected = outputs_of(layer, weights, value)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("options", SCOPES)
@pytest.mark.parametrize(
    "causal", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_lsh_attention_is_one_softmax(causal, options):
    layer, x = make(LSH, causal, **options), make_inputs()
    found = layer(x, mask=MASK)
    statistics = layer.attention_statistics(x, list(range(LENGTH)), mask=MASK)
    weights = statistics["weights"].numpy()
    expected = outputs_of(layer, weights, projected(layer, x, "value"))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    seen = weights[0] > 0
    # All but itself, to which a token attends where it sees nothing else.
    assert seen[:, GLOBAL:, :GLOBAL].all()
    if not causal:
        others = ~np.eye(GLOBAL, LENGTH, dtype=bool)
        assert (seen[:, :GLOBAL] == others).all()
    # Once, whatever the rounds show.
    scores = _scores(layer, x)[0]
    ratio = weights[0, :, 9, 0] / weights[0, :, 9, 2]
    expected = np.exp(scores[:, 9, 0] - scores[:, 9, 2])
    np.testing.assert_allclose(ratio, expected)


def _scores(layer, x):
    query = projected(layer, x, "query_key")
    square = np.mean(query**2, axis=-1, keepdims=True) + 1e-6
    key = query / np.sqrt(square * query.shape[-1])
    return query @ key.swapaxes(2, 3)


@pytest.mark.parametrize(
    "kind, causal, options",
    [
        (LOCAL, True, {}),
        (LSH, False, {}),
        pytest.param(LOCAL, False, {}, marks=pytest.mark.slow),
        pytest.param(LSH, True, {}, marks=pytest.mark.slow),
        pytest.param(LSH, True, {"scope": "chunk"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_equal_finite_differences(kind, causal, options):
    """With dropout, a mask and a learned bias."""
    bias = RelativePositionBias(
        2, causal=causal, embeddings_initializer="normal", dtype="float64"
    )
    layer = make(kind, causal, dropout=0.2, position_bias=bias, **options)
    rng, x = np.random.default_rng(2), make_inputs()[:, :13]
    mask, weights = MASK[:, :13], rng.normal(size=x.shape)
    layer.build(x.shape)
    trainable = [v.value for v in layer.trainable_variables]
    # What is hashed is hashed as it was, so that no step changes a bucket.
    state = [v.numpy() for v in layer.non_trainable_variables]
    hasher = type(layer.hasher) if hasattr(layer, "hasher") else None
    hashed = []

    def loss(arguments):
        for v, value in zip(layer.non_trainable_variables, state, strict=True):
            v.assign(value)
        pairs = zip(layer.trainable_variables, arguments[1:], strict=True)
        outputs, _ = layer.stateless_call(
            [value for _, value in pairs],
            layer.non_trainable_variables,
            arguments[0],
            mask=mask,
            training=True,
        )
        return tf.reduce_sum(outputs * weights)

    with pytest.MonkeyPatch.context() as patch:
        if hasher is not None:
            sort = hasher.sort_once

            def once(self, *args, **kwargs):
                hashed[:] = hashed or [sort(self, *args, **kwargs)]
                return hashed[0]

            patch.setattr(hasher, "sort_once", once)
        arguments = [x, *map(tf.identity, trainable)]
        check_finite_differences(loss, arguments, rng, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        *SCOPES[:2],
        pytest.param(SCOPES[2], marks=pytest.mark.slow),
        SCOPES[3],
    ],
)
def test_lsh_attention_decodes(options):
    layer, x = make(LSH, True, **options), make_inputs()
    if options["scope"] == "bucket":
        expected, lengths, first = layer(x), LENGTHS, 0
    else:
        # Padding may move the borders of chunks.
        expected, lengths, first = stepwise.growing(layer, x), [6] * 4, 6
    found = stepwise.decode(layer, x, lengths)
    assert stepwise.gap(found[:, first:], expected[:, first:]) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"scope": "chunk", "query_key_kernel_size": 2},
        {"scope": "chunk", "wrap": True, "duplicates": "discount"},
        {"scope": "bucket", "exact_below": 9},
    ],
    ids=str,
)
def test_decodes_with_other_options(options):
    bias = AlibiBias(2, dtype="float64")
    layer, x = make(LSH, True, position_bias=bias, **options), make_inputs()
    expected = stepwise.growing(layer, x)[:, 6:]
    found = stepwise.decode(layer, x, [6] * 4)[:, 6:]
    assert stepwise.gap(found, expected) < 1e-12


@pytest.mark.slow
def test_decodes_with_grouped_queries():
    bias, x = AlibiBias(2, dtype="float64"), make_inputs()
    options = {"num_key_value_heads": 1, "wrap": True, "position_bias": bias}
    layer = make(LOCAL, True, **options)
    expected = layer(x)
    assert stepwise.gap(stepwise.decode(layer, x, LENGTHS), expected) < 1e-12


def test_local_attention_decodes_at_constant_cost():
    layer, x = make(LOCAL, True), make_inputs()
    expected = layer(x)
    found = stepwise.decode(layer, x, LENGTHS)
    assert stepwise.gap(found, expected) < 1e-12
    for capacity in (30, 3000):
        _, cache = layer.prefill(x, np.ones(x.shape[:2], bool), capacity)
        assert cache.key.shape[2] == GLOBAL + 2 * CHUNK


def test_fewer_tokens_than_global_ones():
    for kind in (LOCAL, LSH):
        for causal in (True, False):
            layer, x = make(kind, causal), make_inputs()
            found = layer(x[:, :2])
            if causal:
                np.testing.assert_allclose(found, layer(x)[:, :2], atol=1e-12)
        layer = make(kind, True)
        expected = layer(x[:, :2])
        decoded = stepwise.decode(layer, x[:, :2], [1] * 4, capacity=2)
        assert stepwise.gap(decoded, expected) < 1e-12


@pytest.mark.parametrize("kind", [LOCAL, LSH], ids=["local", "lsh"])
def test_rows_with_padding_in_front_have_none(kind):
    layer, x = make(kind, True), make_inputs()
    mask = np.arange(LENGTH) >= np.array([[3], [5], [9], [0]])
    found = layer(x, mask=mask)
    without = kind.func.from_config(
        {**layer.get_config(), "num_global_tokens": 0}
    )
    without.build(x.shape)
    without.set_weights(layer.get_weights())
    expected = without(x, mask=mask)
    np.testing.assert_allclose(found[:3], expected[:3], atol=1e-12)
    assert np.abs(found[3] - expected[3]).max() > 1e-3


@pytest.mark.parametrize(
    "kind", [LSH, pytest.param(LOCAL, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_layer_is_at_home_in_keras(kind):
    def make_layer(dtype=None):
        return kind(num_global_tokens=GLOBAL, dtype=dtype)

    check_layer(make_layer, (2, 13, DIM))


# --- Models ---


class Hidden:
    """A backbone, with the signature of a layer's `decode`."""

    def __init__(self, backbone):
        self.prefill, self.decode = backbone.prefill, backbone.decode


def test_models_decode_what_they_compute():
    model = tiny.make_spread_model(num_global_tokens=GLOBAL)
    backbone, ids = model.backbone, tiny.make_ids(len(LENGTHS), 31)
    found = stepwise.decode(Hidden(backbone), ids, LENGTHS)
    assert stepwise.gap(found, backbone(ids)) < 1e-5
    # The first tokens reach further than both layers' windows.
    changed = ids.copy()
    changed[:, 0] = (ids[:, 0] + 1) % tiny.VOCABULARY
    long = {**tiny.SIZES, "attention_layers": ("local",), "chunk_length": 2}
    for count in (0, GLOBAL):
        backbone = ReformerBackbone(**long, num_global_tokens=count)
        difference = np.abs(backbone(ids) - backbone(changed))
        assert (difference[:, -1].max() > 0) == (count > 0)


def test_configs_from_before_have_none():
    config = ReformerBackbone(**tiny.SIZES).get_config()
    assert config.pop("num_global_tokens") == 0
    again = ReformerBackbone.from_config(config).get_config()
    assert again == {**config, "num_global_tokens": 0}


@pytest.mark.parametrize("count", [-1, 1.5, True, None])
def test_refuses_what_is_no_count(count):
    for kind in (LOCAL, LSH):
        with pytest.raises(ValueError, match="Received: num_global_tokens="):
            kind(num_global_tokens=count)
    with pytest.raises(ValueError, match="Received: num_global_tokens="):
        ReformerBackbone(**tiny.SIZES, num_global_tokens=count)


def test_rows_of_a_tpu_give_the_same():
    """There LSH attention keeps query-key and value in one row."""
    x = tf.cast(make_inputs(), "float32")
    layer = LSHSelfAttention(
        2, 10, chunk_length=CHUNK, num_buckets=4, num_global_tokens=GLOBAL
    )
    layer.build(x.shape)

    def gradients():
        values = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs, *tape.gradient(loss, [x, *values])

    expected = gradients()
    with tracing.lowering_for("tpu"):
        found = gradients()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
