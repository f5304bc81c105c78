import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.metrics import BitsPerByte
from keras_reformer.models.training import ChunkedCrossEntropy
from tests.support import tiny

IDS = tiny.make_ids()
MASK = tiny.make_mask(IDS)
LABELS = tiny.make_ids(seed=1)
WEIGHTS = np.random.default_rng(2).random(IDS.shape).astype("float32")
ROW_WEIGHTS = np.array([0.5, 2.0, 0.0, 1.0], "float32")
MASKED = {"token_ids": IDS, "padding_mask": MASK}


def metrics():
    return ["accuracy", BitsPerByte()]


def compiled(model, **options):
    """Compiles for steps that change nothing."""
    options = {"metrics": metrics(), "run_eagerly": True, **options}
    model.compile(keras.optimizers.SGD(0.0), **options)
    return model


def evaluate(model, *data, **options):
    return model.evaluate(*data, verbose=0, return_dict=True, **options)


def fit(model, *data, **options):
    history = model.fit(*data, verbose=0, shuffle=False, **options).history
    return {name: values[-1] for name, values in history.items()}


def assert_results(results, expected, rtol=1e-5):
    assert set(results) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, rtol=rtol)


@pytest.fixture(scope="module")
def model():
    return compiled(tiny.make_spread_model())


CASES = {
    "bare": (IDS,),
    "without mask": ({"token_ids": IDS},),
    "mask": (MASKED,),
    "labels": (IDS, LABELS),
    "labels and mask": (MASKED, LABELS),
    "labels and weights": (MASKED, LABELS, WEIGHTS),
    "row weights": (IDS, LABELS, ROW_WEIGHTS),
    "integer weights": (IDS, LABELS, np.array([1, 2, 0, 3])),
    "wide labels": (IDS, LABELS.astype("int64")),
}


def expected_results(model, x, y=None, weights=None):
    mask = MASK if isinstance(x, dict) and "padding_mask" in x else None
    logits = model.predict(x, verbose=0)
    labels, valid = tiny.shifted(IDS, mask)
    if y is not None:
        labels, valid = y, np.ones(IDS.shape) if mask is None else mask
    if weights is not None:
        valid = valid * weights.reshape(len(IDS), -1)
    return tiny.numpy_results(logits, labels, valid)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow)
        if case in ("without mask", "labels", "integer weights", "wide labels")
        else case
        for case in CASES
    ],
)
def test_results_equal_numpy_in_fit_and_evaluate(model, case):
    data = CASES[case]
    expected = expected_results(model, *data)
    # evaluate takes the weights by name.
    named = {"sample_weight": data[2]} if len(data) > 2 else {}
    assert_results(evaluate(model, *data[:2], **named), expected)
    # With dropout 0 training differs by its rotations only.
    still = compiled(tiny.make_spread_model(**tiny.SMALLEST))
    expected = expected_results(still, *data)
    assert_results(fit(still, *data[:2], **named), expected)


def test_results_are_those_of_all_batches(model):
    expected = expected_results(model, MASKED)
    assert_results(evaluate(model, MASKED, batch_size=3), expected)


def test_fit_on_inputs_is_fit_on_inputs_shifted_by_one():
    labels, weights = tiny.shifted(IDS, MASK)
    one, other = tiny.make_model(), tiny.make_model()
    ones = tiny.fit_once(one, MASKED)
    others = tiny.fit_once(other, MASKED, labels, sample_weight=weights)
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_tokens_teach_nothing():
    changed = {**MASKED, "token_ids": np.where(MASK, IDS, 3)}
    ones = tiny.fit_once(tiny.make_model(), MASKED)
    others = tiny.fit_once(tiny.make_model(), changed)
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_no_weight_at_all_is_no_loss(model):
    nothing = {**MASKED, "padding_mask": np.zeros_like(MASK)}
    assert evaluate(model, nothing)["loss"] == 0.0


def dataset(*data):
    return tf.data.Dataset.from_tensor_slices(data).batch(2)


@pytest.mark.slow
def test_graph_execution_on_datasets():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    compiled(model, run_eagerly=False, steps_per_execution=2)
    labelled = dataset(MASKED, LABELS, WEIGHTS)
    results = fit(model, labelled, validation_data=labelled)
    expected = expected_results(model, MASKED, LABELS, WEIGHTS)
    assert_results(
        results,
        expected | {f"val_{name}": value for name, value in expected.items()},
    )


def test_datasets_of_inputs_alone(model):
    bare = tf.data.Dataset.from_tensor_slices(IDS).batch(3)
    assert_results(evaluate(model, bare), expected_results(model, IDS))
    bare = tf.data.Dataset.from_tensor_slices(MASKED).batch(3)
    assert_results(evaluate(model, bare), expected_results(model, MASKED))


def test_validation_data(model):
    results = fit(model, IDS, validation_data=(MASKED, LABELS))
    # Afterwards: training moves the centre of hashes, at any learning rate.
    expected = expected_results(model, MASKED, LABELS)
    for name, value in expected.items():
        np.testing.assert_allclose(results[f"val_{name}"], value, rtol=1e-5)


def test_jit_compile():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    compiled(model, run_eagerly=False, jit_compile=True)
    assert_results(fit(model, MASKED), expected_results(model, MASKED))


@pytest.mark.slow
def test_graph_execution_equals_eager():
    ones = tiny.fit_once(tiny.make_model(), MASKED)
    model = tiny.make_model()
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(MASKED, verbose=0, shuffle=False)
    for a, b in zip(ones, tiny.values(model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "policy",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_mixed_precision(policy):
    model = tiny.make_spread_model(dtype=policy)
    full = tiny.make_spread_model()
    full.set_weights(model.get_weights())
    expected = expected_results(full, MASKED, LABELS)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    assert model.predict(IDS, verbose=0).dtype == "float32"
    loss = evaluate(model, MASKED, LABELS)["loss"]
    np.testing.assert_allclose(loss, expected["loss"], rtol=0.05)
    trained = fit(model, MASKED, LABELS)["loss"]
    np.testing.assert_allclose(trained, expected["loss"], rtol=0.05)
    for now, before in zip(
        model.trainable_weights, full.trainable_weights, strict=True
    ):
        assert now.dtype == "float32"
        assert np.isfinite(now.numpy()).all()
        assert not np.array_equal(now.numpy(), before.numpy())


def test_loss_scaling_changes_no_step():
    plain = tiny.fit_once(tiny.make_model(), MASKED)
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**10
    )
    model = tiny.make_model()
    scaled = tiny.fit_once(model, MASKED, optimizer=optimizer)
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_float16_scales_its_loss_by_itself():
    model = tiny.make_model(dtype="mixed_float16", **tiny.SMALLEST)
    model.compile("sgd")
    kind = keras.optimizers.LossScaleOptimizer
    assert isinstance(model.optimizer, kind)


@pytest.mark.slow
def test_loss_falls():
    model = tiny.make_model(
        dropout=0.1, num_layers=1, attention_layers=("lsh",)
    )
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    ids = (np.arange(17) + np.arange(4)[:, None]) % tiny.VOCABULARY
    history = model.fit(ids, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


def own_loss(labels, logits):
    return keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )


def other_options(other):
    if other == "loss":
        return {"loss": own_loss, "metrics": metrics()}
    return {"metrics": [*metrics(), "sparse_top_k_categorical_accuracy"]}


@pytest.mark.covering(1)
@pytest.mark.parametrize("other", ["loss", "metric"])
@pytest.mark.parametrize("x", [IDS, MASKED], ids=["bare", "mask"])
def test_what_needs_logits_warns_and_works(other, x):
    model = tiny.make_spread_model(**tiny.SMALLEST)
    expected = expected_results(model, x)
    with pytest.warns(UserWarning, match="gets the logits of whole"):
        compiled(model, **other_options(other))
    for results in (evaluate(model, x), fit(model, x)):
        # Padding and the last position count in none of them.
        np.testing.assert_allclose(
            [results["accuracy"], results["bits_per_byte"]],
            [expected["accuracy"], expected["bits_per_byte"]],
            rtol=1e-5,
        )
        if other == "metric":
            np.testing.assert_allclose(
                results["loss"], expected["loss"], rtol=1e-5
            )
            top = results["sparse_top_k_categorical_accuracy"]
            assert expected["accuracy"] <= top <= 1.0


def test_user_loss_gets_logits_and_teaches():
    model = tiny.make_model(**tiny.SMALLEST)
    with pytest.warns(UserWarning, match="gets the logits of whole"):
        model.compile(
            keras.optimizers.SGD(0.1), loss=own_loss, run_eagerly=True
        )
    first = fit(model, IDS, LABELS)["loss"]
    assert fit(model, IDS, LABELS)["loss"] < first


def test_weighted_metrics_are_computed_in_chunks(model):
    expected = expected_results(model, MASKED)
    try:
        compiled(model, metrics=["accuracy"], weighted_metrics=[BitsPerByte()])
        assert_results(evaluate(model, MASKED), expected)
    finally:
        compiled(model)


def test_compiling_again_changes_the_metrics():
    model = compiled(tiny.make_model(**tiny.SMALLEST))
    assert set(evaluate(model, IDS)) == {"loss", "accuracy", "bits_per_byte"}
    compiled(model, metrics=None)
    assert set(evaluate(model, IDS)) == {"loss"}
    compiled(model, metrics=[BitsPerByte(name="bpb")])
    assert set(fit(model, IDS)) == {"loss", "bpb"}


def test_metrics_start_anew(model):
    assert evaluate(model, IDS) == evaluate(model, IDS)


def test_regularizers_count_once():
    model = tiny.make_model()
    block = model.backbone.sequence.blocks[0]
    plain = evaluate(compiled(model), IDS)["loss"]
    dense = block.feed_forward.layer.intermediate
    dense.kernel.regularizer = keras.regularizers.L2(0.5)
    model.head.kernel.regularizer = keras.regularizers.L2(0.25)
    penalty = 0.5 * np.sum(dense.kernel.numpy() ** 2)
    penalty += 0.25 * np.sum(model.head.kernel.numpy() ** 2)
    loss = evaluate(compiled(model), IDS)["loss"]
    np.testing.assert_allclose(loss, plain + penalty, rtol=1e-5)
    # A rate at which only the penalty is seen.
    before = dense.kernel.numpy()
    head = model.head.kernel.numpy()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    zero = np.zeros(IDS.shape, "float32")
    fit(model, IDS, LABELS, sample_weight=zero)
    np.testing.assert_allclose(
        dense.kernel.numpy(), before * (1 - 0.1), atol=1e-6
    )
    np.testing.assert_allclose(
        model.head.kernel.numpy(), head * (1 - 0.05), atol=1e-6
    )


def test_activity_losses_count_once():
    model = tiny.make_model()
    branch = model.backbone.sequence.blocks[1].attention
    plain = evaluate(compiled(model), IDS)["loss"]
    seen = []

    def regularizer(outputs):
        seen.append(outputs)
        return keras.ops.convert_to_tensor(0.125)

    branch.activity_regularizer = regularizer
    loss = evaluate(compiled(model), IDS)["loss"]
    assert len(seen) == 1
    # Of a later Keras than 3.13 it is the mean over the batch.
    probe = keras.layers.Identity(activity_regularizer=regularizer)
    probe(np.ones(IDS.shape, "float32"))
    (once,) = probe.losses
    np.testing.assert_allclose(loss, plain + float(once), rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_frozen_sublayers_do_not_change(optimizer):
    model = tiny.make_model()
    backbone = model.backbone
    frozen = [
        backbone.token_embedding,
        backbone.sequence.blocks[1].attention,
    ]
    for layer in frozen:
        layer.trainable = False
    still = [v for layer in frozen for v in layer.weights]
    before = [v.numpy() for v in model.weights]
    # A bias and keys have gradients of their own; all others must move.
    tiny.fit_once(model, IDS, optimizer=keras.optimizers.get(optimizer))
    moved = {
        id(v)
        for v, old in zip(model.weights, before, strict=True)
        if not np.array_equal(v.numpy(), old)
    }
    assert not moved & {id(v) for v in still}
    assert {id(v) for v in model.trainable_weights} <= moved
    assert len(model.trainable_weights) > 10


def test_low_rank_adapters_learn_in_place_of_their_kernels():
    model = tiny.make_model()
    attention = model.backbone.sequence.blocks[1].attention.layer
    adapted = [attention.query_key, model.head]
    for dense in adapted:
        dense.enable_lora(2)
    frozen = [dense._kernel.numpy() for dense in adapted]
    effective = [dense.kernel.numpy() for dense in adapted]
    # The first step moves one factor, which starts at zero.
    tiny.fit_once(model, IDS)
    for dense, old, was in zip(adapted, frozen, effective, strict=True):
        np.testing.assert_array_equal(dense._kernel.numpy(), old)
        assert not np.allclose(dense.kernel.numpy(), was)


def test_recomputing_changes_no_step():
    ones = tiny.fit_once(tiny.make_model(dropout=0.1, recompute=True), IDS)
    others = tiny.fit_once(tiny.make_model(dropout=0.1, recompute=False), IDS)
    for a, b in zip(ones, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_models_logits_stay_unmade(monkeypatch):
    model = tiny.make_model(**tiny.SMALLEST)
    compiled(model)

    def refuse(*arguments, **options):
        raise AssertionError("the whole model ran")

    monkeypatch.setattr(type(model), "call", refuse)
    assert isinstance(model, ChunkedCrossEntropy)
    assert np.isfinite(fit(model, IDS)["loss"])
    assert np.isfinite(evaluate(model, IDS)["loss"])
