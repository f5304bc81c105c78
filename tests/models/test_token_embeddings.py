"""From embeddings to outputs, as from token ids."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerQuestionAnswering,
)
from tests.support import tiny
from tests.support.tiny import PUBLISHED

IDS = tiny.make_ids(length=23)
MASK = tiny.make_mask(IDS)
SMALLEST = {**tiny.SIZES, **tiny.SMALLEST}
OPTIONS = {
    "plain": tiny.SIZES,
    "padded": PUBLISHED,
    "rotary": {**SMALLEST, "position_embedding": "rotary"},
    "bfloat16": {**SMALLEST, "dtype": "mixed_bfloat16"},
}


def embedded(model, ids=IDS):
    """Inputs of embeddings that stand for token ids."""
    backbone = getattr(model, "backbone", model)
    return {"token_embeddings": backbone.token_embedding(ids)}


def assert_equal(ones, others):
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("training", [False, True])
def test_equal_to_token_ids(options, training):
    keras.utils.set_random_seed(0)
    found, expected = (
        ReformerBackbone(**OPTIONS[options], dropout=0.1) for _ in range(2)
    )
    found.set_weights(expected.get_weights())
    inputs = {**embedded(found), "padding_mask": MASK}
    np.testing.assert_array_equal(
        found(inputs, training=training),
        expected([IDS, MASK], training=training),
    )


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_equal_to_token_ids_in_graphs(jit_compile):
    backbone = ReformerBackbone(**{**PUBLISHED, "num_hashes": 1})
    run = tf.function(backbone, jit_compile=jit_compile, autograph=False)
    np.testing.assert_array_equal(
        run(embedded(backbone)), run(tf.constant(IDS))
    )


@pytest.mark.parametrize(
    "kind",
    [
        ReformerCausalLM,
        ReformerMaskedLM,
        ReformerClassifier,
        ReformerQuestionAnswering,
    ],
)
def test_heads_take_embeddings(kind):
    options = {"num_classes": 3} if kind is ReformerClassifier else {}
    model = kind(**SMALLEST, **options)
    inputs = {**embedded(model), "padding_mask": MASK}
    keras.tree.map_structure(
        np.testing.assert_array_equal, model(inputs), model([IDS, MASK])
    )


def test_gradients_are_those_of_the_table():
    backbone = ReformerBackbone(**PUBLISHED)
    table = backbone.token_embedding.embeddings
    weights = tf.random.stateless_normal((*IDS.shape, 32), (1, 2))
    inputs = embedded(backbone)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(weights * backbone(inputs))
    saliency = tape.gradient(loss, inputs)["token_embeddings"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weights * backbone(IDS))
    expected = tf.convert_to_tensor(tape.gradient(loss, table.value))
    found = tf.math.unsorted_segment_sum(
        tf.reshape(saliency, (-1, 16)), IDS.ravel(), tiny.VOCABULARY
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_prefill_takes_embeddings():
    backbone = ReformerBackbone(**{**PUBLISHED, "causal": True})
    mask = np.ones(IDS.shape, bool)
    found, expected = (
        backbone.prefill(inputs, mask, 30)
        for inputs in (embedded(backbone), IDS)
    )
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)
    np.testing.assert_allclose(found[0], backbone(IDS), atol=1e-5)


def test_a_language_model_learns_from_embeddings():
    weights = []
    for of in (embedded, lambda model: IDS):
        keras.utils.set_random_seed(0)
        model = ReformerCausalLM(**SMALLEST)
        model.backbone.token_embedding.trainable = False
        inputs = of(model)
        weights.append(tiny.fit_once(model, inputs, IDS))
    assert_equal(*weights)
    # Nothing else leaves the table without a gradient, of which Keras warns.
    model.backbone.token_embedding.trainable = True
    with pytest.warns(UserWarning, match="Gradients do not exist.*token_emb"):
        tiny.fit_once(model, embedded(model), IDS)
    with pytest.raises(ValueError, match="no next token.*labels=None"):
        model.evaluate(embedded(model), verbose=0)


class SoftPrompt(keras.layers.Layer):
    """Puts learned vectors in front of each row."""

    def build(self, input_shape):
        shape = (1, 5, input_shape[-1])
        self.prompt = self.add_weight(shape=shape, name="prompt")

    def call(self, inputs):
        batch = keras.ops.shape(inputs)[0]
        prompt = keras.ops.repeat(self.prompt, batch, axis=0)
        return keras.ops.concatenate([prompt, inputs], axis=1)


def test_learning_a_prompt_of_a_frozen_model():
    lm = ReformerCausalLM(**SMALLEST)
    lm.trainable = False
    ids = keras.Input((None,), dtype="int32")
    embeddings = SoftPrompt()(lm.backbone.token_embedding(ids))
    model = keras.Model(ids, lm({"token_embeddings": embeddings})[:, 5:])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss, run_eagerly=True)
    before = lm.get_weights()
    history = model.fit(IDS, IDS, epochs=4, verbose=0).history["loss"]
    assert len(model.trainable_weights) == 1
    assert history[-1] < history[0]
    assert_equal(before, lm.get_weights())


def test_a_call_builds_no_model(monkeypatch):
    lm = ReformerCausalLM(**SMALLEST)
    expected = lm.backbone(IDS)

    def build(*arguments, **options):
        raise AssertionError("a model was built")

    monkeypatch.setattr(keras.Model, "__init__", build)
    hidden = lm.backbone.before_normalization(IDS)
    np.testing.assert_array_equal(lm.backbone.normalization(hidden), expected)
