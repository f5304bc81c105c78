"""Language models whose logits are made by the table of embeddings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.models import ReformerCausalLM, ReformerMaskedLM
from tests.support import tiny

IDS = tiny.make_ids()
TIED = {"merge": "mean", "tie_embeddings": True, **tiny.SMALLEST}
KINDS = [ReformerCausalLM, ReformerMaskedLM]


def make(kind=ReformerCausalLM, **options):
    keras.utils.set_random_seed(3)
    return kind(**{**tiny.SIZES, **TIED, **options})


def table_of(model):
    return model.backbone.token_embedding.embeddings


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_products_with_the_table(kind):
    model = make(kind)
    hidden = model.backbone(IDS).numpy()
    expected = hidden / np.sqrt(16) @ table_of(model).numpy().T
    np.testing.assert_allclose(model(IDS), expected, atol=1e-5)
    # Embeddings have unit variance, and so have logits.
    assert 0.5 < np.std(expected) < 2


def test_there_is_one_table():
    tied, untied = make(), make(tie_embeddings=False)
    shape = (tiny.VOCABULARY, 16)
    shapes = [tuple(v.shape) for v in tied.weights]
    assert shapes.count(shape) == 1 and shape[::-1] not in shapes
    # An untied head has a kernel and a bias.
    assert len(untied.weights) == len(tied.weights) + 2
    assert len({id(v) for v in tied.trainable_weights}) == len(
        tied.trainable_weights
    )


def test_gradients_of_both_uses_are_added():
    model = make()
    table = table_of(model)
    before = table.numpy()
    labels, weights = tiny.shifted(IDS)
    # The head's copy of the table keeps the two uses apart.
    copy = tf.constant(before)
    with tf.GradientTape() as tape:
        tape.watch(copy)
        hidden = model.backbone(IDS, training=True)
        logits = hidden / np.sqrt(16) @ tf.transpose(copy)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_sum(nats * weights) / np.sum(weights)
    uses = [
        tf.convert_to_tensor(gradient).numpy()
        for gradient in tape.gradient(loss, [table.value, copy])
    ]
    tiny.fit_once(model, IDS, optimizer=keras.optimizers.SGD(1.0))
    np.testing.assert_allclose(before - table.numpy(), sum(uses), atol=1e-5)
    for use in uses:
        assert np.abs(use).max() > 1e-3


def test_a_file_keeps_the_tie(tmp_path):
    model = make()
    tiny.fit_once(model, IDS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    table_of(loaded).assign(tf.zeros_like(table_of(loaded)))
    np.testing.assert_array_equal(loaded(IDS), np.zeros((*IDS.shape, 11)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    model, full = make(dtype=policy), make()
    full.set_weights(model.get_weights())
    logits = model(IDS)
    assert logits.dtype == table_of(model).dtype == "float32"
    np.testing.assert_allclose(logits, full(IDS), atol=0.15)
    assert model.head.compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("kind", KINDS)
def test_wider_outputs_are_refused(kind):
    with pytest.raises(
        ValueError, match="merge='mean'. Received: .*outputs of width 32 and"
    ):
        make(kind, merge="concat")
