"""Models as layers of other models."""

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

SIZES = {**tiny.SIZES, **tiny.SMALLEST}
LENGTH, WIDTH = 24, 2 * SIZES["hidden_dim"]
IDS = tiny.make_ids(length=LENGTH)
MASK = tiny.make_mask(IDS)
KINDS = {
    ReformerBackbone: (WIDTH,),
    ReformerCausalLM: (tiny.VOCABULARY,),
    ReformerMaskedLM: (tiny.VOCABULARY,),
    ReformerClassifier: None,
    ReformerQuestionAnswering: (),
}


def ids_input(*shape, **options):
    return keras.Input(shape, dtype="int32", **options)


def mask_input(*shape, **options):
    return keras.Input(shape, dtype="bool", **options)


def expected_shape(kind, batch, length):
    """Of one output: a score a class, or something at each position."""
    if kind is ReformerClassifier:
        return batch, 3
    return batch, length, *KINDS[kind]


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    options = {"num_classes": 3} if request.param is ReformerClassifier else {}
    return request.param(**SIZES, **options)


@pytest.fixture(scope="module")
def backbone():
    return tiny.make_backbone(causal=False, **tiny.SMALLEST)


def shapes_of(outputs):
    return {tuple(x.shape) for x in keras.tree.flatten(outputs)}


# --- Shapes ---


@pytest.mark.parametrize(
    "options, batch, length",
    [
        ({"shape": (LENGTH,)}, None, LENGTH),
        ({"shape": (None,)}, None, None),
        ({"batch_shape": (2, None)}, 2, None),
        ({"batch_shape": (2, LENGTH)}, 2, LENGTH),
    ],
)
def test_symbolic_shapes(model, options, batch, length):
    ids = keras.Input(dtype="int32", **options)
    mask = keras.Input(dtype="bool", **options)
    both = {"token_ids": ids, "padding_mask": mask}
    vectors = keras.KerasTensor((*ids.shape, SIZES["hidden_dim"]))
    for inputs in (
        ids,
        {"token_ids": ids},
        {"token_ids": ids, "padding_mask": None},
        both,
        [ids, mask],
        (ids,),
        {"token_embeddings": vectors},
        {"token_embeddings": vectors, "padding_mask": mask},
    ):
        outputs = model(inputs)
        expected = {expected_shape(type(model), batch, length)}
        assert shapes_of(outputs) == expected
        assert shapes_of(model.compute_output_spec(inputs)) == expected
        for output in keras.tree.flatten(outputs):
            assert output.dtype == "float32"


@pytest.mark.parametrize(
    "shape",
    [
        (2, 24),
        [(2, 24), (2, 24)],
        {"token_ids": (2, 24)},
        {"token_ids": (2, 24), "padding_mask": None},
        {"token_ids": (2, 24), "padding_mask": (2, 24)},
        {"token_embeddings": (2, 24, 16)},
    ],
)
def test_compute_output_shape(model, shape):
    found = model.compute_output_shape(shape)
    for output in found.values() if isinstance(found, dict) else [found]:
        assert output == expected_shape(type(model), 2, 24)


# --- Composed models ---


def fixed_length(backbone):
    ids = ids_input(LENGTH)
    return keras.Model(ids, pooled(backbone(ids))), IDS


def shared(backbone):
    """One backbone, two inputs, one of them with a mask."""
    first, second = ids_input(LENGTH, name="first"), ids_input(8, name="second")
    mask = mask_input(LENGTH, name="mask")
    outputs = [
        pooled(backbone({"token_ids": first, "padding_mask": mask})),
        pooled(backbone(second)),
    ]
    outputs = keras.layers.Concatenate()(outputs)
    model = keras.Model([first, second, mask], outputs)
    return model, [IDS, IDS[:, :8], MASK]


def nested(backbone):
    inner, data = fixed_length(backbone)
    ids = ids_input(LENGTH)
    return keras.Model(ids, keras.layers.Dense(2)(inner(ids))), data


def of_a_list(backbone):
    ids, mask = ids_input(None, name="ids"), mask_input(None, name="mask")
    return keras.Model([ids, mask], pooled(backbone([ids, mask]))), [IDS, MASK]


def optional_mask(backbone):
    inputs = {
        "ids": ids_input(None, name="ids"),
        "mask": mask_input(None, name="mask", optional=True),
    }
    outputs = backbone(
        {"token_ids": inputs["ids"], "padding_mask": inputs["mask"]}
    )
    return keras.Model(inputs, pooled(outputs)), {"ids": IDS, "mask": MASK}


def of_embeddings(backbone):
    """Measured values, masked as Keras masks them."""
    backbone = tiny.make_backbone(causal=False, **tiny.SMALLEST)
    backbone.token_embedding.trainable = False
    values = np.random.default_rng(0).normal(size=(*IDS.shape, 5))
    values = np.where(MASK[..., None], values, 0.0).astype("float32")
    inputs = keras.Input((LENGTH, 5))
    x = keras.layers.Dense(SIZES["hidden_dim"])(keras.layers.Masking()(inputs))
    outputs = pooled(backbone({"token_embeddings": x}))
    return keras.Model(inputs, outputs), values


def pooled(hidden):
    return keras.layers.GlobalAveragePooling1D()(hidden)


COMPOSED = [
    fixed_length,
    shared,
    nested,
    of_a_list,
    optional_mask,
    of_embeddings,
]


@pytest.mark.parametrize("compose", COMPOSED)
def test_composed_models_train_and_save(backbone, compose, tmp_path):
    model, data = compose(backbone)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(data, np.zeros((4, model.output_shape[-1])), verbose=0)
    expected = model(data)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data), expected)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(data), expected)


@pytest.mark.slow
@pytest.mark.parametrize("compose", COMPOSED)
def test_composed_models_are_exported(backbone, compose, tmp_path):
    model, data = compose(backbone)
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    answer = loaded.serve(keras.tree.map_structure(tf.constant, data))
    np.testing.assert_allclose(answer, model(data), atol=1e-5)


def test_composed_models_compute_what_their_parts_do(backbone):
    model, data = shared(backbone)
    first = backbone({"token_ids": IDS, "padding_mask": MASK}).numpy()
    first = (first * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)
    second = backbone(IDS[:, :8]).numpy().mean(1)
    expected = np.concatenate([first, second], axis=1)
    np.testing.assert_allclose(model(data), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"dtype": "int32"}])
def test_sequential(model, options):
    sequential = keras.Sequential([keras.Input((LENGTH,), **options), model])
    expected = shapes_of(sequential.outputs)
    assert expected == {expected_shape(type(model), None, LENGTH)}
    keras.tree.map_structure(
        np.testing.assert_array_equal, sequential(IDS), model(IDS)
    )


@pytest.mark.parametrize("times", [3, None])
def test_time_distributed(backbone, times):
    inputs = ids_input(times, LENGTH)
    outputs = keras.layers.TimeDistributed(backbone)(inputs)
    assert outputs.shape == (None, times, LENGTH, WIDTH)
    data = np.stack([IDS, IDS[::-1], IDS], axis=1)
    found = keras.Model(inputs, outputs)(data)
    for time, ids in enumerate((IDS, IDS[::-1], IDS)):
        np.testing.assert_allclose(found[:, time], backbone(ids), atol=1e-5)


# --- Masks ---


def test_arrays_beside_tensors(backbone):
    np.testing.assert_array_equal(
        backbone([tf.constant(IDS), MASK]), backbone([IDS, MASK])
    )
    np.testing.assert_array_equal(backbone([IDS, None]), backbone(IDS))


def test_masks_of_keras_count_as_padding_masks(model):
    expected = model([IDS, MASK])
    found = [model(IDS, mask=MASK), model({"token_ids": IDS}, mask=MASK)]
    for outputs in found:
        keras.tree.map_structure(
            np.testing.assert_array_equal, outputs, expected
        )
    # One that is given counts.
    outputs = model([IDS, np.ones_like(MASK)], mask=MASK)
    whole = model([IDS, np.ones_like(MASK)])
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, whole)


def test_masks_may_have_a_last_axis_of_one(backbone):
    np.testing.assert_array_equal(
        backbone([IDS, MASK[..., None]]), backbone([IDS, MASK])
    )


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_masks_may_be_numbers(backbone, dtype):
    np.testing.assert_array_equal(
        backbone([IDS, MASK.astype(dtype)]), backbone([IDS, MASK])
    )


# --- What is refused ---


@pytest.mark.parametrize(
    "inputs, match",
    [
        ([IDS, MASK, MASK], "A list of inputs"),
        ([[1, 2], [3, 4]], "np.array"),
        ({"token_ids": [[1, 2]]}, "`token_ids` must be an array"),
        (tf.ragged.constant([[1], [2, 3]]), "not be ragged.*row_lengths"),
        ({"padding_mask": MASK}, "does not take"),
        ({"token_ids": IDS, "type_ids": IDS}, "does not take.*type_ids"),
        ({"token_ids": IDS, "token_embeddings": IDS}, "does not take"),
        ([MASK, IDS], "must be integers.*bool"),
        (IDS.astype("float16"), "must be integers.*float16"),
        (IDS.astype("str"), "must be integers.*str"),
        (IDS[0], "Token ids must have two axes.*(24,)"),
        ([IDS, MASK[:, 1:]], r"padding mask .*padding_mask.shape=\(4, 23\)"),
        ([IDS, MASK[0]], r"padding mask .*padding_mask.shape=\(24,\)"),
        (np.ones((1, 101), "int32"), "max_sequence_length=100.*length=101"),
        (
            {"token_embeddings": np.ones((4, 24, 15), "float32")},
            "hidden_dim=16",
        ),
        ({"token_embeddings": IDS}, "must be vectors.*int32"),
        ({"token_embeddings": IDS[..., None]}, "must be vectors.*int32"),
        ({"token_embeddings": np.ones((1, 101, 16))}, "length=101"),
    ],
)
def test_inputs_that_are_refused(model, inputs, match):
    with pytest.raises(ValueError, match="(?s)" + match):
        model(inputs)


@pytest.mark.parametrize(
    "inputs, match",
    [
        (ids_input(101), "length=101"),
        (mask_input(24), "must be integers.*bool"),
        (ids_input(24, 24), "two axes"),
        ({"token_embeddings": keras.Input((24, 15))}, "hidden_dim=16"),
    ],
)
def test_symbolic_inputs_that_are_refused(model, inputs, match):
    with pytest.raises(ValueError, match="(?s)" + match):
        model(inputs)
