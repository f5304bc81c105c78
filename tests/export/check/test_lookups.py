"""Models with tables of TensorFlow inside: lookups, hash tables, raw variables.

A SavedModel must hold them, or no other process can load it.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer import models
from keras_reformer.export import export_saved_model, verify_saved_model, warmup
from keras_reformer.export.check import runner
from tests.support.tiny_exports import ONE_BLOCK, SIZES

WORDS = ["a", "bb", "c" * 40]
IDS = np.array([[10, 20, 7], [30, 7, 7]], "int32")
TEXT = np.array([["c" * 40, "a", ""], ["é", "bb", "x" * 90]])


def fixed_table():
    initializer = tf.lookup.KeyValueTensorInitializer([10, 20], [1, 2])
    return tf.lookup.StaticHashTable(initializer, 3)


class RawTables(keras.layers.Layer):
    """Holds what Keras does not list among its variables."""

    def __init__(self):
        super().__init__()
        self.fixed = [fixed_table()]
        filled = tf.lookup.experimental.MutableHashTable(tf.int32, tf.int32, 4)
        filled.insert([10, 20], [1, 2])
        self.filled = {"some": {"name": filled}}
        self.offset = tf.Variable(1)

    def call(self, x):
        y = self.filled["some"]["name"].lookup(x) + self.offset
        return tf.ensure_shape(y + self.fixed[0].lookup(x), x.shape)

    def compute_output_shape(self, shape):
        return shape


def sequential(shape, dtype, *layers):
    layers = [*layers, keras.layers.Embedding(20, 3)]
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def language_model():
    text = keras.Input((None,), dtype="string")
    ids = keras.layers.StringLookup(vocabulary=WORDS)(text)
    model = models.ReformerCausalLM(**{**SIZES, **ONE_BLOCK})
    return keras.Model(text, model(ids))


def named_classes():
    ids = keras.Input((None,), dtype="int32")
    classes = keras.ops.maximum(ids, 1)
    names = keras.layers.StringLookup(vocabulary=WORDS, invert=True)
    return keras.Model(ids, names(classes))


MODELS = {
    "integers": lambda: sequential(
        (None,), "int32", keras.layers.IntegerLookup(vocabulary=[10, 20, 30])
    ),
    "raw": lambda: sequential((None,), "int32", RawTables()),
    "strings": language_model,
    "texts": lambda: sequential(
        (1,), "string", keras.layers.TextVectorization(vocabulary=WORDS)
    ),
    "flat-texts": lambda: sequential(
        (), "string", keras.layers.TextVectorization(vocabulary=WORDS)
    ),
    "names": named_classes,
}
INPUTS = {
    "strings": TEXT,
    "texts": TEXT[:, :1],
    "flat-texts": TEXT[:, 1],
    "names": np.array([[1, 2], [3, 0]], "int32"),
}


def inputs_of(kind):
    """What a model is asked, by its name in the request."""
    inputs = INPUTS.get(kind, IDS)
    return "token_ids" if inputs.dtype == "int32" else "text", inputs


def assert_same(answer, expected):
    """Equal integers and texts; logits as near as graphs compute them."""
    if np.asarray(expected).dtype.kind == "f":
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow)
        if kind in ("strings", "integers")
        else kind
        for kind in MODELS
    ],
)
def test_tables_are_in_the_export(kind, tmp_path, program):
    """As TensorFlow alone reads it, in Python and in C."""
    name, inputs = inputs_of(kind)
    model = MODELS[kind]()
    path = export_saved_model(model, str(tmp_path))
    expected = np.asarray(model(inputs))
    loaded = tf.saved_model.load(path)
    answer = loaded.serve(**{name: inputs})["logits"]
    assert_same(answer, expected)
    with runner.Runner(program, path) as c:
        for request in (inputs, inputs[:1]):
            answer = c.run("serve", {name: request})["logits"]
            assert_same(answer, expected[: len(request)])
    ((_, example),) = warmup.read(path)
    assert example[name].shape[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_tables_are_there_in_another_process(kind, tmp_path):
    model = MODELS[kind]()
    path = export_saved_model(model, str(tmp_path))
    assert verify_saved_model(path, model, inputs_of(kind)[1]) == 0


def test_a_vocabulary_file_travels_along(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\n".join(WORDS) + "\n")
    lookup = keras.layers.StringLookup(vocabulary=str(file))
    model = sequential((None,), "string", lookup)
    path = export_saved_model(model, str(tmp_path / "export"))
    file.unlink()
    assert verify_saved_model(path, model, TEXT) == 0


@pytest.mark.slow
def test_other_tables_are_noticed(tmp_path):
    model = MODELS["names"]()
    path = export_saved_model(model, str(tmp_path))
    other = keras.layers.StringLookup(vocabulary=WORDS[::-1], invert=True)
    ids = keras.Input((None,), dtype="int32")
    other = keras.Model(ids, other(keras.ops.maximum(ids, 1)))
    with pytest.raises(RuntimeError, match="other outputs"):
        verify_saved_model(path, other, INPUTS["names"])


def test_a_table_that_no_layer_holds_is_refused(tmp_path):
    table = fixed_table()
    look_up = keras.layers.Lambda(
        lambda x: tf.ensure_shape(table.lookup(x), x.shape),
        output_shape=lambda shape: shape,
    )
    model = sequential((None,), "int32", look_up)
    with pytest.raises(ValueError, match="none of its layers holds"):
        export_saved_model(model, str(tmp_path))
    assert not list(tmp_path.iterdir())
