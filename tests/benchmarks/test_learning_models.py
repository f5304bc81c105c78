import argparse

import keras
import linear
import models
import numpy as np
import pytest
import tensorflow as tf


def naive(query, key, value, mask):
    """The equation of `LinearAttention`, row by row."""
    scores = np.einsum("bhid,bhjd->bhij", query, key)
    scores *= np.tril(np.ones(scores.shape[-2:]))
    scores *= mask[:, None, None, :]
    total = scores.sum(axis=-1, keepdims=True)
    return np.einsum("bhij,bhjd->bhid", scores / total, value)


def elu_plus_one(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


@pytest.mark.parametrize(
    "chunk_length, kernel_size", [(1, 1), (4, 2), (13, 1), (16, 2)]
)
def test_linear_attention_is_its_equation(chunk_length, kernel_size):
    layer = linear.LinearAttention(3, 5, chunk_length, kernel_size)
    inputs = np.random.default_rng(0).normal(size=(2, 13, 7)).astype("float32")
    mask = np.ones((2, 13), bool)
    mask[0, 6:] = mask[1, 3] = False
    found = layer(inputs, mask=mask)

    def heads(project, convolve=lambda x, mask: x):
        x = keras.ops.convert_to_numpy(convolve(project(inputs), mask=mask))
        return x.reshape(2, 13, 3, 5).transpose(0, 2, 1, 3)

    attended = naive(
        elu_plus_one(heads(layer.query, layer.query_convolution)),
        elu_plus_one(heads(layer.key, layer.key_convolution)),
        heads(layer.value),
        mask,
    )
    merged = attended.transpose(0, 2, 1, 3).reshape(2, 13, 15)
    np.testing.assert_allclose(
        found, layer.output_projection(merged), atol=1e-5
    )


def test_linear_attention_sees_nothing_that_comes_later():
    layer = linear.LinearAttention(2, 4, 4)
    inputs = keras.random.normal((1, 11, 8))
    for place in range(11):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = layer(inputs)[:, place]
        gradient = tape.gradient(output, inputs)[0].numpy()
        assert (gradient[place + 1 :] == 0).all()
        assert (gradient[: place + 1] != 0).any(axis=1).all()


def options(**changes):
    defaults = {name: value for name, (value, _) in models.OPTIONS.items()}
    return argparse.Namespace(**{**defaults, "width": 16, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("kind", models.KINDS)
def test_every_kind_trains_and_serves_longer_texts(kind):
    made = [models.causal_lm(kind, options(), 11, n, 0) for n in (32, 64)]
    model, longer = made
    model.compile("adam", metrics=["accuracy"], run_eagerly=True)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 32))
    before = model.get_weights()
    model.fit(tokens, tokens, verbose=0)
    changed = [
        (one != two).any()
        for one, two in zip(before, model.get_weights(), strict=True)
    ]
    assert all(changed)
    longer.set_weights(model.get_weights())
    logits = longer(np.concatenate([tokens, tokens], axis=1))
    assert logits.shape == (2, 64, 11)
    assert np.isfinite(logits).all()


def test_kinds_differ_in_the_attention_of_the_second_block_alone():
    shapes = {
        kind: [
            (block.attention.layer.name, block.feed_forward.layer.name)
            for block in models.causal_lm(
                kind, options(), 11, 32, 0
            ).backbone.sequence.blocks
        ]
        for kind in models.KINDS
    }
    local = ("local_self_attention", "feed_forward")
    assert {blocks[0] for blocks in shapes.values()} == {local}
    assert {kind: blocks[1][0] for kind, blocks in shapes.items()} == {
        "lsh": "lsh_self_attention",
        "lsh-chunk": "lsh_self_attention",
        "exact": "lsh_self_attention",
        "local": "local_self_attention",
        "linear": "linear_attention",
    }


def test_exact_kind_attends_exactly_and_rounds_can_be_set():
    def layer(kind):
        return models.causal_lm(kind, options(), 11, 32, 0)

    for kind, longest, scope in (
        ("lsh", None, "bucket"),
        ("lsh-chunk", None, "chunk"),
        ("exact", 32, "bucket"),
    ):
        model = layer(kind)
        (lsh,) = model.backbone.lsh_layers().values()
        assert (lsh.exact_below, lsh.scope) == (longest, scope)
        models.attend(model.backbone, 8)
        assert (lsh.exact_below, lsh.num_hashes) == (0, 8)
        models.attend(model.backbone, 0)
        assert (lsh.exact_below, lsh.num_hashes) == (32, 8)


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("lsh", ("lsh", {})),
        ("lsh-2", ("lsh", {"num_hashes": 2})),
        ("lsh-chunk-8", ("lsh-chunk", {"scope": "chunk", "num_hashes": 8})),
        ("exact-plain", ("exact", {"recompute": False})),
        ("lsh-1-plain", ("lsh", {"num_hashes": 1, "recompute": False})),
        (
            "exact-uncentered-unconvolved",
            ("exact", {"center_hashes": False, "query_key_kernel_size": 1}),
        ),
    ],
)
def test_kinds_are_read(kind, expected):
    assert models.parse_kind(kind) == expected


@pytest.mark.parametrize("kind", ["lsh-", "full", "lsh-plain-2", ""])
def test_other_kinds_are_refused(kind):
    with pytest.raises(ValueError, match="Received: kind="):
        models.parse_kind(kind)


def test_arguments_of_the_model_are_read_as_literals():
    found = models.key_values("dropout=0.1;merge=mean;axial_shape=[2, 3]")
    assert found == {"dropout": 0.1, "merge": "mean", "axial_shape": [2, 3]}
    with pytest.raises(ValueError, match="key=value"):
        models.key_values("dropout")
