"""Several replicas train as one device does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer.metrics import BitsPerByte
from keras_reformer.models import (
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerQuestionAnswering,
)
from tests.support import tiny, tiny_pairs

IDS = tiny.make_ids(5, 9)
LABELS = tiny.make_ids(5, 9, seed=1)
MASK = np.arange(9) < np.array([[9], [3], [5], [2], [8]])
MASKED = {"token_ids": IDS, "padding_mask": MASK}
ROW_WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 3.0], "float32")
CLASS_WEIGHT = {2: 0.0, 3: 5.0}


def make_model(strategy=None, metrics=("accuracy",), **options):
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = tiny.make_spread_model(**tiny.SMALLEST)
        # A penalty that replicas must not count twice.
        model.head.kernel.regularizer = keras.regularizers.L2(0.01)
        options = {"run_eagerly": True, **options}
        model.compile(
            keras.optimizers.SGD(0.5), metrics=list(metrics), **options
        )
    return model


def fit(model, *data, **options):
    """Results of an epoch, and the weights after it."""
    options = {"shuffle": False, "verbose": 0, **options}
    history = model.fit(*data, **options).history
    results = {name: values[-1] for name, values in history.items()}
    return results, tiny.values(model)


def assert_same(found, expected):
    results, values = found
    assert set(results) == set(expected[0])
    for name, value in expected[0].items():
        np.testing.assert_allclose(results[name], value, rtol=1e-5)
    for a, b in zip(values, expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def dataset(*data):
    return tf.data.Dataset.from_tensor_slices(data)


CASES = {
    "an odd last batch": ((MASKED, LABELS), {"batch_size": 4}),
    "an odd batch without labels": ((MASKED,), {}),
    "a mask of None": (({**MASKED, "padding_mask": None},), {"batch_size": 4}),
    "fewer rows than replicas": ((IDS[:1],), {}),
    "a dataset": ((dataset(MASKED, LABELS).batch(5),), {}),
    "class weights": ((MASKED, LABELS), {"class_weight": CLASS_WEIGHT}),
    "row weights, a validation split": (
        (IDS, LABELS),
        {"sample_weight": ROW_WEIGHTS, "validation_split": 0.4},
    ),
    "validation data": (
        (IDS[:2],),
        {"validation_data": (MASKED, LABELS), "validation_batch_size": 3},
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow)
        if any(
            word in case
            for word in ("weight", "validation", "None", "dataset", "labels")
        )
        else case
        for case in CASES
    ],
)
def test_replicas_train_as_one_device(case, two_replicas):
    data, options = CASES[case]
    expected = fit(make_model(), *data, **options)
    assert_same(fit(make_model(two_replicas), *data, **options), expected)


@pytest.mark.slow
def test_replicas_in_a_graph(two_replicas):
    metrics = ["accuracy", BitsPerByte()]
    expected = fit(make_model(metrics=metrics), MASKED, batch_size=4)
    model = make_model(two_replicas, metrics, run_eagerly=False)
    assert_same(fit(model, MASKED, batch_size=4), expected)


@pytest.mark.slow
def test_replicas_center_hashes_as_one_device(two_replicas):
    """The rows that fill up an odd batch have no tokens."""

    def make(strategy=None):
        with (strategy or tf.distribute.get_strategy()).scope():
            model = tiny.make_model(num_buckets=4)
            model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        return model

    expected = fit(make(), IDS, batch_size=4)
    assert_same(fit(make(two_replicas), IDS, batch_size=4), expected)


def test_replicas_evaluate_and_predict_as_one_device(two_replicas):
    one, model = make_model(), make_model(two_replicas)
    options = {"verbose": 0, "batch_size": 3}
    np.testing.assert_allclose(
        model.evaluate(MASKED, **options),
        one.evaluate(MASKED, **options),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        model.predict(MASKED, **options)[MASK],
        one.predict(MASKED, **options)[MASK],
        atol=1e-5,
    )


PAIRS = {
    "no masks": tiny_pairs.make_inputs(5, masks=False),
    "one mask": {
        name: x
        for name, x in tiny_pairs.make_inputs(5).items()
        if name != "decoder_padding_mask"
    },
    "masks": tiny_pairs.make_inputs(5),
}


def make_pair_model(strategy=None, **options):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = tiny_pairs.make_model(**options)
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return model


SOME_SLOW = [
    "no masks",
    *(pytest.param(x, marks=pytest.mark.slow) for x in ("one mask", "masks")),
]


@pytest.mark.parametrize("masks", SOME_SLOW)
def test_replicas_train_encoder_decoders_as_one_device(masks, two_replicas):
    """A last batch of one row leaves one replica without any."""
    expected = fit(make_pair_model(), PAIRS[masks], batch_size=4)
    found = fit(make_pair_model(two_replicas), PAIRS[masks], batch_size=4)
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("masks", PAIRS)
def test_replicas_run_encoder_decoders_as_one_device(masks, two_replicas):
    inputs, options = PAIRS[masks], {"verbose": 0, "batch_size": 4}
    one, model = make_pair_model(), make_pair_model(two_replicas)
    np.testing.assert_allclose(
        model.predict(inputs, **options),
        one.predict(inputs, **options),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        model.evaluate(inputs, **options),
        one.evaluate(inputs, **options),
        rtol=1e-5,
    )


@pytest.mark.slow
def test_replicas_center_hashes_of_encoder_decoders(two_replicas):
    """The rows that fill up an odd batch have no tokens on either side."""
    options = {"num_layers": 2, "attention_layers": ("local", "lsh")}
    inputs = PAIRS["no masks"]
    expected = fit(make_pair_model(**options), inputs, batch_size=4)
    found = fit(make_pair_model(two_replicas, **options), inputs, batch_size=4)
    assert_same(found, expected)


def test_arrays_to_predict_stay_on_the_host(two_replicas, monkeypatch):
    """As a tensor, all of them would lie on the default device."""
    fed = []
    plain_predict = keras.Model.predict

    def predict(model, x, **kwargs):
        fed.extend(keras.tree.flatten(x))
        return plain_predict(model, x, **kwargs)

    model = make_model(two_replicas)
    monkeypatch.setattr(keras.Model, "predict", predict)
    model.predict(MASKED, verbose=0)
    assert [(type(x), x.dtype) for x in fed] == [
        (np.ndarray, np.int8),
        (np.ndarray, IDS.dtype),
    ]


@pytest.mark.filterwarnings("ignore:A loss or metric other than")
@pytest.mark.parametrize(
    "kind", ["one", pytest.param("two", marks=pytest.mark.slow)]
)
def test_metrics_that_need_logits_without_labels(kind, two_replicas):
    metrics = ["accuracy", "sparse_top_k_categorical_accuracy"]
    strategy = (
        two_replicas
        if kind == "two"
        else tf.distribute.OneDeviceStrategy("CPU")
    )
    expected = fit(make_model(metrics=metrics), MASKED)
    # Eager replicas are threads, whose reductions may come in other orders.
    model = make_model(strategy, metrics, run_eagerly=kind == "one")
    assert_same(fit(model, MASKED), expected)


@pytest.mark.filterwarnings("ignore:A loss or metric other than")
@pytest.mark.parametrize("loss", [None, "own"])
def test_one_device_strategy_without_labels(loss):
    if loss == "own":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    expected = fit(make_model(loss=loss), MASKED)
    assert_same(fit(make_model(strategy, loss=loss), MASKED), expected)


CLASSES = np.array([0, 1, 2, 0, 1])
STARTS = {"start": np.array([3, 1, 2, 0, 7]), "end": np.array([8, 2, 4, 1, 7])}


def make_classifier():
    options = {**tiny.SIZES, **tiny.SMALLEST}
    return ReformerClassifier(num_classes=3, head_dropout=0.0, **options)


def make_question_answering():
    return ReformerQuestionAnswering(**{**tiny.SIZES, **tiny.SMALLEST})


def make_functional():
    """A plain model of layers, which Keras alone trains."""
    inputs = keras.Input((9, 8))
    block = keras_reformer.ReversibleBlock(
        keras_reformer.LocalSelfAttention(2, 4, chunk_length=4),
        keras_reformer.FeedForward(16),
    )
    x = keras_reformer.ReversibleSequence([block])(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def compiled(make, strategy, **options):
    """A model with a penalty, which replicas must not count twice."""
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(3)
        model = make()
        model.layers[-1].kernel_regularizer = keras.regularizers.L2(0.01)
        options = {"metrics": ["accuracy"], "run_eagerly": True, **options}
        if isinstance(model, ReformerMaskedLM):
            model.compile(keras.optimizers.SGD(0.5), **options)
            return model
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if isinstance(model, ReformerQuestionAnswering):
            loss = {"start": loss, "end": loss}
            options["metrics"] = {"start": ["accuracy"], "end": ["accuracy"]}
        model.compile(keras.optimizers.SGD(0.5), loss, **options)
    return model


def make_masked_lm():
    return ReformerMaskedLM(**{**tiny.SIZES, **tiny.SMALLEST})


FLOATS = np.random.default_rng(2).normal(size=(4, 9, 8)).astype("float32")
OTHERS = {
    "masked, an odd last batch": (make_masked_lm, MASKED, LABELS, 4),
    "classes, an odd last batch": (make_classifier, MASKED, CLASSES, 3),
    "classes, an empty shard": (make_classifier, MASKED, CLASSES, 4),
    "answers, an odd last batch": (make_question_answering, MASKED, STARTS, 3),
    "a Functional model, whole batches": (
        make_functional,
        FLOATS,
        CLASSES[:4],
        2,
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow)
        if "masked" in case or "empty" in case or "answers" in case
        else case
        for case in OTHERS
    ],
)
def test_other_models_train_as_on_one_device(case, two_replicas):
    make, *data, batch_size = OTHERS[case]
    options = {"batch_size": batch_size}
    # Of no rows TensorFlow's eager steps have no gradients for positions.
    eager = case != "classes, an empty shard"
    expected = fit(compiled(make, None), *data, **options)
    model = compiled(make, two_replicas, run_eagerly=eager)
    assert_same(fit(model, *data, **options), expected)


@pytest.mark.parametrize(
    "reduction",
    [pytest.param(x, marks=pytest.mark.slow) for x in ("sum", "mean")],
)
def test_other_reductions_of_replicas(reduction, two_replicas):
    found = []
    for strategy in (None, two_replicas):
        model = compiled(make_classifier, strategy)
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction=reduction
        )
        model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
        fit(model, MASKED, CLASSES, batch_size=3)
        found.append(tiny.values(model))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_mask_of_none_of_other_models(two_replicas):
    model = compiled(make_classifier, two_replicas)
    inputs = {"token_ids": IDS, "padding_mask": None}
    assert np.isfinite(fit(model, inputs, CLASSES)[0]["loss"])


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_xla_of_several_replicas_is_refused(call, two_replicas):
    model = make_model(two_replicas, run_eagerly=False, jit_compile=True)
    with pytest.raises(ValueError, match="Received: jit_compile=True, num_rep"):
        getattr(model, call)(MASKED, verbose=0)


@pytest.mark.slow
def test_xla_of_one_replica():
    expected = fit(make_model(), MASKED, batch_size=5)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    model = make_model(strategy, run_eagerly=False, jit_compile=True)
    assert_same(fit(model, MASKED, batch_size=5), expected)


def test_unknown_tokens_are_refused(two_replicas):
    model = make_model(two_replicas)
    with pytest.raises(ValueError, match="vocabulary"):
        model.fit(IDS - 5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="vocabulary"):
        model.fit(dataset(IDS - 5).batch(2), verbose=0)


@pytest.mark.filterwarnings("ignore:A loss or metric other than")
def test_a_users_loss_is_the_mean_of_replicas(two_replicas):
    """Each replica's is its mean, whatever the weights of the others."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = make_model(two_replicas, metrics=(), loss=loss)
    model.head.kernel.regularizer = None
    found = model.evaluate(MASKED, LABELS, verbose=0)
    nats = tiny.numpy_nats(model.predict(MASKED, verbose=0), LABELS)
    parts = slice(0, 3), slice(3, 5)
    means = [np.average(nats[rows], weights=MASK[rows]) for rows in parts]
    np.testing.assert_allclose(found, np.mean(means), rtol=1e-5)


def test_accumulated_gradients_are_means_of_steps():
    """Keras divides by the number of steps, whatever their weights."""
    rows = [
        {name: x[row : row + 1] for name, x in MASKED.items()} for row in (0, 1)
    ]
    before = tiny.values(make_model())
    steps = [fit(make_model(), row)[1] for row in rows]
    model = make_model()
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    model.compile(optimizer, run_eagerly=True)
    both = {name: x[:2] for name, x in MASKED.items()}
    _, found = fit(model, both, batch_size=1)
    for old, a, b, value in zip(before, *steps, found, strict=True):
        np.testing.assert_allclose(value - old, (a + b) / 2 - old, atol=1e-5)
