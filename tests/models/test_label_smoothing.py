"""Label smoothing in training and evaluation."""

import keras
import numpy as np
import pytest

from keras_reformer.metrics import BitsPerByte
from tests.support import tiny

IDS = tiny.make_ids()
MASKED = {"token_ids": IDS, "padding_mask": tiny.make_mask(IDS)}
SHARE = 0.3


def compiled(model, share=SHARE, **options):
    """Compiles for steps that change nothing."""
    options = {"run_eagerly": True, **options}
    model.compile(
        keras.optimizers.SGD(0.0),
        metrics=["accuracy", BitsPerByte()],
        label_smoothing=share,
        **options,
    )
    return model


def make_model():
    return tiny.make_spread_model(**tiny.SMALLEST)


def expected_results(model):
    """Accuracy and bits per byte know nothing of smoothed labels."""
    logits = model.predict(MASKED, verbose=0).astype("float64")
    labels, weights = tiny.shifted(IDS, MASKED["padding_mask"])
    results = tiny.numpy_results(logits, labels, weights)
    every = [
        tiny.numpy_nats(logits, np.full(IDS.shape, token))
        for token in range(tiny.VOCABULARY)
    ]
    nats = tiny.numpy_nats(logits, labels)
    smoothed = (1 - SHARE) * nats + SHARE * np.mean(every, axis=0)
    results["loss"] = np.sum(smoothed * weights) / np.sum(weights)
    return results


def assert_results(results, expected):
    assert set(results) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=1e-5)


def evaluate(model):
    return model.evaluate(MASKED, verbose=0, return_dict=True)


@pytest.mark.parametrize(
    "jit", [None, pytest.param(False, marks=pytest.mark.slow)]
)
def test_results_in_fit_and_evaluate_equal_numpy(jit):
    model = make_model()
    expected = expected_results(model)
    eager = jit is None
    compiled(model, run_eagerly=eager, jit_compile=bool(jit))
    assert_results(evaluate(model), expected)
    history = model.fit(MASKED, verbose=0, validation_data=(MASKED,)).history
    results = {name: values[0] for name, values in history.items()}
    for prefix in ("", "val_"):
        found = {name: results[prefix + name] for name in expected}
        assert_results(found, expected)


@pytest.mark.slow
def test_training_lowers_the_smoothed_loss():
    model = make_model()
    model.compile(
        keras.optimizers.Adam(0.01), run_eagerly=True, label_smoothing=SHARE
    )
    losses = model.fit(MASKED, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_file_keeps_it(tmp_path):
    model = compiled(make_model())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_compile_config()["label_smoothing"] == SHARE
    assert_results(evaluate(loaded), evaluate(model))


def test_the_next_compile_forgets_it():
    model = compiled(make_model())
    smoothed = evaluate(model)["loss"]
    model.compile("sgd", run_eagerly=True)
    assert abs(evaluate(model)["loss"] - smoothed) > 1e-3


@pytest.mark.parametrize("share", [-0.1, 1.0, "much", None])
def test_refuses_a_share_out_of_range(share):
    with pytest.raises(ValueError, match="Received: label_smoothing="):
        make_model().compile(label_smoothing=share)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        {"metrics": ["sparse_top_k_categorical_accuracy"]},
    ],
    ids=["loss", "metric"],
)
def test_refuses_it_beside_what_needs_logits(options):
    with pytest.raises(ValueError, match="Received: label_smoothing=0.1"):
        make_model().compile(label_smoothing=0.1, **options)
