"""What an engine trains is what TensorFlow trains, on the same batches."""

import keras
import numpy as np
import pytest

from keras_reformer.distribute import JaxEngine
from keras_reformer.metrics import BitsPerByte
from keras_reformer.models import ReformerClassifier
from tests.support import engines, tiny

# A full batch, and one that does not divide among two devices.
EPOCHS = 10
IDS = tiny.make_ids(engines.ROWS, 24)
MASK = np.arange(24) < np.array([[24], [3], [15], [2], [20]])
TOKENS = {"token_ids": IDS, "padding_mask": MASK}
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def two():
    engine = JaxEngine()
    assert engine.num_devices == 2
    return engine


def language_model(**options):
    model = tiny.make_model(**{**tiny.SMALLEST, **options})
    # A penalty that devices must not count twice.
    model.head.kernel.regularizer = keras.regularizers.L2(0.01)
    return model, {
        "optimizer": keras.optimizers.Adam(0.01),
        "metrics": ["accuracy", BitsPerByte()],
    }


def hashing_language_model():
    """The defaults, with the direction that hashes are relative to."""
    options = {**tiny.SIZES, "num_buckets": 8}
    return language_model(**options, attention_layers=("local", "lsh"))


def classifier():
    keras.utils.set_random_seed(3)
    model = ReformerClassifier(
        num_classes=3, **{**tiny.SIZES, "center_hashes": False}
    )
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]
    return model, {
        "optimizer": keras.optimizers.Adam(0.01),
        "loss": FROM_LOGITS,
        "metrics": metrics,
    }


def scheduled():
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-2, 20, warmup_steps=3, warmup_target=2e-2
    )
    optimizer = keras.optimizers.AdamW(schedule, clipnorm=0.1)
    return engines.functional_model(), {
        "optimizer": optimizer,
        "loss": FROM_LOGITS,
        "metrics": ["accuracy"],
        "weighted_metrics": ["accuracy"],
    }


def accumulating():
    model, settings = scheduled()
    settings["optimizer"] = keras.optimizers.Adam(
        0.01, global_clipnorm=0.5, gradient_accumulation_steps=3
    )
    return model, settings


def bfloat16():
    model, settings = scheduled()
    return engines.functional_model("mixed_bfloat16"), settings


def test_language_model_with_unequal_padding(two):
    options = {"epochs": EPOCHS}
    expected = engines.fit(language_model, (TOKENS,), None, **options)
    found = engines.fit(language_model, (TOKENS,), two, **options)
    engines.assert_same(found, expected)


def test_what_is_a_mean_over_a_batch(two):
    """The center of hashes, and a penalty of a layer's outputs."""

    def make():
        model = engines.functional_model(center_hashes=True)
        # Their norms differ from row to row, and they weigh the directions.
        norms = np.linspace(1, 9, engines.IDS)[:, None]
        model.layers[1].embeddings.assign(norms * model.layers[1].embeddings)
        engines.penalize_outputs(model.layers[1])
        return model, {"optimizer": "sgd", "loss": FROM_LOGITS}

    ids, labels, _ = engines.classes()
    options = {"epochs": 2, "batch_size": engines.ROWS}
    expected = engines.fit(make, (ids, labels), None, **options)
    found = engines.fit(make, (ids, labels), two, **options)
    engines.assert_same(found, expected)


def language_model_with_a_penalty_of_outputs():
    model, settings = hashing_language_model()
    engines.penalize_outputs(model.backbone.get_layer("token_embedding"))
    return model, settings


CASES = {
    "outputs": (language_model_with_a_penalty_of_outputs, (TOKENS,), 1e-5),
    "hashing": (hashing_language_model, (TOKENS,), 1e-5),
    "classifier": (classifier, (TOKENS, IDS[:, 0] % 3), 1e-5),
    "functional": (scheduled, None, 1e-5),
    "accumulation": (accumulating, None, 1e-5),
    "bfloat16": (bfloat16, None, 1e-2),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_other_models_and_optimizers(case, two):
    make, data, tolerance = CASES[case]
    ids, labels, weights = engines.classes()
    options = {"epochs": EPOCHS}
    if data is None:
        data, options["sample_weight"] = (ids, labels), weights
    expected = engines.fit(make, data, None, **options)
    found = engines.fit(make, data, two, **options)
    engines.assert_same(found, expected, tolerance)


@pytest.mark.slow
def test_one_device_draws_what_tensorflow_draws():
    """Rotations, dropout masks and the common direction included."""

    def make():
        options = {**tiny.SIZES, "dropout": 0.2}
        return language_model(**options, attention_layers=("local", "lsh"))

    [device, _] = JaxEngine().devices
    options = {"epochs": 3, "validation_data": (TOKENS,)}
    expected = engines.fit(make, (TOKENS,), None, **options)
    found = engines.fit(make, (TOKENS,), JaxEngine([device]), **options)
    engines.assert_same(found, expected)


@pytest.mark.slow
def test_devices_draw_masks_of_their_own(two):
    """Two equal rows, one a device: their dropout masks differ."""

    def make():
        model = engines.functional_model(dropout=0.5)
        return model, {"optimizer": "sgd", "loss": FROM_LOGITS}

    ids, labels, _ = engines.classes(1)
    data = np.repeat(ids, 2, axis=0), np.repeat(labels, 2)
    _, one = engines.fit(make, (ids, labels), None)
    _, both = engines.fit(make, data, two)
    # The embedding's rows: only a mask of its own moves them elsewhere.
    assert np.abs(one[0] - both[0]).max() > 1e-6
