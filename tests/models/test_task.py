"""Models of a backbone and a head."""

import re

import keras
import numpy as np
import pytest

from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerQuestionAnswering,
)
from tests.support import tiny
from tests.support.tiny import (
    SMALLEST,
    VOCABULARY,
    make_ids,
    make_mask,
    numpy_nats,
)

SIZES = {**tiny.SIZES, **SMALLEST}
KINDS = {
    ReformerMaskedLM: {},
    ReformerClassifier: {"num_classes": 3},
    ReformerQuestionAnswering: {},
}


def make(kind, **options):
    return kind(**{**SIZES, **KINDS.get(kind, {}), **options})


@pytest.mark.parametrize("kind", KINDS)
def test_config_and_file_round_trip(kind, tmp_path):
    model, ids = make(kind, dropout=0.1), make_ids()
    copy = kind.from_config(model.get_config())
    assert copy.get_config() == model.get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is kind
    keras.tree.map_structure(
        np.testing.assert_array_equal, loaded(ids), model(ids)
    )


@pytest.mark.parametrize("kind", [*KINDS, ReformerCausalLM])
def test_clone(kind):
    model, ids = make(kind, dropout=0.1), make_ids()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    # Keras clones any Functional model as a plain one, whose inputs are not
    # optional any more.
    inputs = {"token_ids": ids, "padding_mask": make_mask(ids)}
    keras.tree.map_structure(
        np.testing.assert_array_equal, clone(inputs), model(inputs)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_float32_whatever_the_policy(kind):
    outputs = make(kind, dtype="mixed_bfloat16")(make_ids())
    for output in keras.tree.flatten(outputs):
        assert output.dtype == "float32"


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_change_nothing(kind):
    model, ids = make(kind), make_ids()
    mask = make_mask(ids)
    other = np.where(mask, ids, (ids + 1) % VOCABULARY)
    first, second = (
        keras.tree.flatten(model({"token_ids": x, "padding_mask": mask}))
        for x in (ids, other)
    )
    for a, b in zip(first, second, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape[1:2] == ids.shape[1:]:
            a, b = a[mask], b[mask]
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_masked_lm_predicts_from_both_sides():
    model, ids = make(ReformerMaskedLM), make_ids()
    other = ids.copy()
    other[:, -1] = (ids[:, -1] + 1) % VOCABULARY
    difference = np.abs(np.asarray(model(ids)) - np.asarray(model(other)))
    assert difference[:, -5:-1].max() > 1e-4


def test_loss_of_a_masked_lm_counts_weighted_positions():
    model, ids = make(ReformerMaskedLM), make_ids()
    weights = np.random.default_rng(0).integers(0, 2, ids.shape)
    model.compile(metrics=["accuracy"])
    found = model.evaluate(ids, ids, sample_weight=weights, verbose=0)
    nats = numpy_nats(model(ids), ids)
    expected = (nats * weights).sum() / weights.sum()
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="needs labels"):
        model.evaluate(ids, verbose=0)


@pytest.mark.slow
def test_a_classifier_learns():
    keras.utils.set_random_seed(0)
    model, ids = make(ReformerClassifier), make_ids(batch=16, length=12)
    labels = (ids[:, -1] > VOCABULARY // 2).astype("int32")
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(ids, labels, epochs=60, batch_size=16, verbose=0)
    assert model.evaluate(ids, labels, verbose=0)[1] > 0.9


@pytest.mark.parametrize("kind", [ReformerMaskedLM, ReformerClassifier])
def test_a_training_step_is_traced_once(kind, monkeypatch):
    model, ids = make(kind), make_ids()
    labels = ids if kind is ReformerMaskedLM else ids[:, 0] % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=None if kind is ReformerMaskedLM else loss)
    step, traces = model.train_step, []

    def counted(data):
        traces.append(data)
        return step(data)

    monkeypatch.setattr(model, "train_step", counted)
    model.fit(ids, labels, batch_size=2, epochs=2, verbose=0)
    assert len(traces) == 1


def test_question_answering_trains_on_both_ends():
    model, ids = make(ReformerQuestionAnswering), make_ids()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", {"start": loss, "end": loss}, run_eagerly=True)
    ends = {"start": np.array([1, 2, 3, 4]), "end": np.array([5, 6, 7, 8])}
    history = model.fit(ids, ends, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize("kind", [ReformerMaskedLM, ReformerClassifier])
def test_causal_backbones_are_refused(kind):
    backbone = ReformerBackbone(**SIZES)
    with pytest.raises(ValueError, match="Expected.* causal=False") as refused:
        kind(backbone=backbone, **KINDS[kind])
    # The error shows how its weights can be used nevertheless.
    (lines,) = re.findall("`(other = .*?)`", str(refused.value))
    names = {"ReformerBackbone": ReformerBackbone, "backbone": backbone}
    exec(lines, names)
    model = kind(backbone=names["other"], **KINDS[kind])
    for x, y in zip(
        model.backbone.trainable_variables,
        backbone.trainable_variables,
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


def test_options_of_the_head_are_checked():
    with pytest.raises(ValueError, match="num_classes"):
        make(ReformerClassifier, num_classes=0)
    with pytest.raises(ValueError, match="head_dropout"):
        make(ReformerClassifier, head_dropout=1.0)
