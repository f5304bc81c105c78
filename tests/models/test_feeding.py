"""What models do with data before a step gets it."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.models import (
    ReformerBackbone,
    ReformerClassifier,
    ReformerMaskedLM,
)
from tests.support import tiny

SIZES = {**tiny.SIZES, **tiny.SMALLEST}
IDS = tiny.make_ids(4, 9)
LABELS = tiny.make_ids(4, 9, seed=1)
MASK = tiny.make_mask(IDS)
MASKED = {"token_ids": IDS, "padding_mask": MASK}
CLASS_WEIGHT = {2: 0.0, 3: 5.0, 7: 0.5}
TABLE = np.array([CLASS_WEIGHT.get(i, 1.0) for i in range(tiny.VOCABULARY)])
TABLE = TABLE.astype("float32")


def with_id(token, ids=IDS):
    """Ids of which a valid one is another."""
    ids = ids.copy()
    ids[1, 0] = token
    return ids


def make_model(**options):
    model = tiny.make_model(**{**tiny.SMALLEST, **options})
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return model


def dataset(*data):
    return tf.data.Dataset.from_tensor_slices(data).batch(4)


def fitted(*data, model=None, method="fit", **options):
    """The weights of a model after a step."""
    model = make_model() if model is None else model
    if method == "fit":
        options = {"shuffle": False, "verbose": 0, **options}
    getattr(model, method)(*data, **options)
    return tiny.values(model)


def assert_equal(values, expected):
    for a, b in zip(values, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.fixture(scope="module")
def weighed():
    """The weights after a step whose tokens are weighed by hand."""
    return fitted(MASKED, LABELS, sample_weight=TABLE[LABELS])


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_class_weights_count_for_tokens(method, weighed):
    found = fitted(MASKED, LABELS, class_weight=CLASS_WEIGHT, method=method)
    assert_equal(found, weighed)


def test_class_weights_of_a_dataset(weighed):
    data = dataset(MASKED, LABELS)
    assert_equal(fitted(data, class_weight=CLASS_WEIGHT), weighed)


def test_class_weights_of_shifted_inputs():
    labels, valid = tiny.shifted(IDS, MASK)
    expected = fitted(MASKED, labels, sample_weight=valid * TABLE[labels])
    assert_equal(fitted(MASKED, class_weight=CLASS_WEIGHT), expected)
    assert_equal(fitted(dataset(MASKED), class_weight=CLASS_WEIGHT), expected)


def test_class_weights_of_zero_teach_nothing():
    nothing = dict.fromkeys(range(tiny.VOCABULARY), 0.0)
    model = make_model()
    before = tiny.values(model)
    assert_equal(fitted(IDS, LABELS, model=model, class_weight=nothing), before)


def test_class_weights_are_for_training_alone():
    model = make_model()
    model.optimizer.learning_rate = 0.0
    options = {"verbose": 0, "class_weight": CLASS_WEIGHT}
    history = model.fit(
        IDS, LABELS, validation_split=0.5, shuffle=True, **options
    ).history
    expected = model.evaluate(IDS[2:], LABELS[2:], verbose=0)
    np.testing.assert_allclose(history["val_loss"][0], expected, rtol=1e-5)
    nats = tiny.numpy_nats(model.predict(IDS[:2], verbose=0), LABELS[:2])
    weights = TABLE[LABELS[:2]]
    np.testing.assert_allclose(
        history["loss"][0], (nats * weights).sum() / weights.sum(), rtol=1e-5
    )


def test_class_weights_of_a_masked_lm():
    def make():
        keras.utils.set_random_seed(3)
        model = ReformerMaskedLM(**SIZES)
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
        return model

    expected = fitted(IDS, LABELS, model=make(), sample_weight=TABLE[LABELS])
    found = fitted(IDS, LABELS, model=make(), class_weight=CLASS_WEIGHT)
    assert_equal(found, expected)


def test_class_weights_of_a_classifier_are_kerass():
    model = ReformerClassifier(num_classes=2, **SIZES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    labels = np.array([0, 1, 1, 0])
    before = tiny.values(model)
    assert_equal(
        fitted(IDS, labels, model=model, class_weight={0: 0.0, 1: 0.0}), before
    )
    fitted(IDS, labels, model=model, class_weight={0: 0.0, 1: 1.0})
    assert not np.allclose(tiny.values(model)[-1], before[-1], atol=1e-9)


def generator():
    yield IDS, LABELS


@pytest.mark.parametrize(
    "data, message",
    [
        ((IDS, LABELS, ...), "either weights of its own or"),
        (
            (dataset(IDS, LABELS, TABLE[LABELS]),),
            "either weights of its own or",
        ),
        ((generator(),), "weighs the labels of arrays or of a"),
    ],
)
def test_class_weights_beside_what_does_not_fit_are_refused(data, message):
    options = {}
    if data[-1] is ...:
        data, options = data[:-1], {"sample_weight": TABLE[LABELS]}
    with pytest.raises(ValueError, match=message):
        make_model().fit(*data, class_weight=CLASS_WEIGHT, **options)


REFUSED = {
    "negative token": (with_id(-1),),
    "great token": (with_id(tiny.VOCABULARY),),
    "great label": (IDS, with_id(tiny.VOCABULARY, LABELS)),
    "great label with a mask": (MASKED, with_id(tiny.VOCABULARY, LABELS)),
}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_in_the_vocabulary_is_refused(case, model):
    data = REFUSED[case]
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    methods = ["fit", "evaluate", "train_on_batch", "test_on_batch"]
    if len(data) == 1:
        methods += ["predict", "predict_on_batch"]
    for method in methods:
        with pytest.raises(ValueError, match="vocabulary"):
            getattr(model, method)(*data)
        if not method.endswith("on_batch"):
            with pytest.raises(tf.errors.InvalidArgumentError, match="vocab"):
                getattr(model, method)(dataset(*data), verbose=0)
    now = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    for a, b in zip(before, now, strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_data_are_checked(model):
    with pytest.raises(ValueError, match="vocabulary"):
        model.fit(IDS, validation_data=REFUSED["great label"])


def test_a_validation_dataset_is_mapped_once(monkeypatch, model):
    mapped = []
    plain_map = tf.data.Dataset.map

    def counted_map(dataset, *args, **kwargs):
        mapped.append(dataset)
        return plain_map(dataset, *args, **kwargs)

    def count(epochs):
        mapped.clear()
        data = {"validation_data": dataset(IDS), "epochs": epochs}
        model.fit(dataset(IDS), **data, verbose=0)
        return len(mapped)

    monkeypatch.setattr(tf.data.Dataset, "map", counted_map)
    assert count(epochs=3) == count(epochs=1) > 0


@pytest.mark.parametrize("kind", [ReformerBackbone, ReformerClassifier])
def test_tokens_of_other_models_are_checked(kind):
    options = {"num_classes": 2} if kind is ReformerClassifier else {}
    model = kind(**SIZES, **options)
    with pytest.raises(ValueError, match="vocabulary"):
        model.predict(with_id(-1))
    with pytest.raises(ValueError, match="vocabulary"):
        model(with_id(-1))


def test_xla_refuses_what_is_seen_and_survives_the_rest():
    model = make_model()
    model.compile(jit_compile=True)
    label = with_id(tiny.VOCABULARY, LABELS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="vocabulary"):
        model.evaluate(dataset(MASKED, label), verbose=0)

    def batches():
        while True:
            yield {**MASKED, "token_ids": with_id(-1)}, label

    # A generator's batches reach the step unseen.
    found = model.evaluate(batches(), steps=1, verbose=0)
    model.compile(run_eagerly=True)
    known = {**MASKED, "token_ids": with_id(0)}
    expected = model.evaluate(known, with_id(-100, LABELS), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_negative_labels_weigh_nothing(model):
    labels = np.where(np.arange(9) % 3, LABELS, -100)
    weights = (labels >= 0).astype("float32")
    options = {"verbose": 0}
    found = model.evaluate(MASKED, labels, **options)
    expected = model.evaluate(MASKED, LABELS, sample_weight=weights, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    nothing = np.full_like(LABELS, -1)
    assert model.evaluate(MASKED, nothing, **options) == 0.0


def test_masked_tokens_and_labels_may_be_anything(model):
    strange = {**MASKED, "token_ids": np.where(MASK, IDS, -7)}
    labels = np.where(MASK, LABELS, 1000)
    found = model.evaluate(strange, labels, verbose=0)
    expected = model.evaluate(MASKED, LABELS, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(
        model.predict(strange, verbose=0)[MASK],
        model.predict(MASKED, verbose=0)[MASK],
        atol=1e-6,
    )


def test_a_mask_may_be_none(model):
    inputs, options = {"token_ids": IDS, "padding_mask": None}, {"verbose": 0}
    assert model.evaluate(inputs, **options) == model.evaluate(IDS, **options)
    expected = model.predict(IDS, **options)
    np.testing.assert_array_equal(model.predict(inputs, **options), expected)


def test_masks_and_labels_with_a_last_axis_of_one(model):
    wide = {**MASKED, "padding_mask": MASK[..., None]}
    labels, weights = LABELS[..., None], TABLE[LABELS]
    named = {"sample_weight": weights[..., None], "verbose": 0}
    np.testing.assert_allclose(
        model.evaluate(wide, labels, **named),
        model.evaluate(MASKED, LABELS, sample_weight=weights, verbose=0),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        model.predict(wide, verbose=0), model.predict(MASKED, verbose=0)
    )
    expected = fitted(MASKED, LABELS)
    assert_equal(fitted(wide, labels), expected)


def test_masks_of_other_shapes_are_refused(model):
    short = {**MASKED, "padding_mask": MASK[:, :1]}
    for call in (model, model.predict, model.evaluate):
        with pytest.raises(ValueError, match="padding_mask.shape="):
            call(short)


@pytest.mark.parametrize("shape", [(4, 1), (4, 9, tiny.VOCABULARY)])
def test_labels_of_other_shapes_are_refused(shape, model):
    labels = np.zeros(shape, "int32")
    for data in ((IDS, labels), (dataset(IDS, labels),)):
        with pytest.raises(ValueError, match="labels.shape="):
            model.fit(*data, verbose=0)


@pytest.mark.filterwarnings("ignore:A loss or metric other than")
def test_one_hot_labels_of_a_users_loss():
    def fit_with(loss, labels):
        model = make_model()
        loss = getattr(keras.losses, loss)(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5), loss, run_eagerly=True)
        return fitted(MASKED, labels, model=model, class_weight=CLASS_WEIGHT)

    one_hot = np.eye(tiny.VOCABULARY, dtype="float32")[LABELS]
    assert_equal(
        fit_with("CategoricalCrossentropy", one_hot),
        fit_with("SparseCategoricalCrossentropy", LABELS),
    )


@pytest.mark.parametrize("shape", [(9,), (4, 9, 1)])
def test_token_ids_of_other_shapes_are_refused(shape, model):
    ids = np.zeros(shape, "int32")
    for call in (model, model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match="must have two axes") as refusal:
            call(ids)
        assert str(shape) in str(refusal.value)


def test_arguments_may_be_given_by_position(model):
    assert inspect.signature(model.fit) == inspect.signature(
        keras.Model(model.inputs, model.outputs).fit
    )
    history = model.fit(IDS, LABELS, 4, 2, 0).history
    assert len(history["loss"]) == 2
