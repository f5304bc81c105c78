"""The seed of rotations: a variable of its layer, and none of its weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import LSHSelfAttention

X = np.random.default_rng(0).normal(size=(2, 16, 8)).astype("float32")


def make_layer(**options):
    return LSHSelfAttention(2, 4, num_buckets=4, chunk_length=8, **options)


def make_model():
    inputs = keras.Input((16, 8))
    return keras.Model(inputs, make_layer()(inputs))


def seed_of(model):
    return model.layers[-1].rotation_seed.numpy().tolist()


def test_it_is_a_variable_and_no_weight():
    model = make_model()
    layer = model.layers[-1]
    paths = [v.path for v in layer.weights]
    assert not [path for path in paths if "seed" in path]
    for variables in (layer.variables, layer.non_trainable_variables):
        assert any(v is layer.rotation_seed for v in variables)
    assert layer.rotation_seed.path.endswith(f"{layer.name}/rotation_seed")
    assert model.count_params() == 3 * 8 * 8


def test_a_seed_decides_on_it():
    layers = [make_layer(seed=seed) for seed in (3, 3, 4)]
    for layer in layers:
        layer.build((None, 16, 8))
    values = [layer.rotation_seed.numpy().tolist() for layer in layers]
    assert values[0] == values[1] != values[2]
    # As it was drawn in earlier versions.
    assert values[0] == [821718, 3939899]


def test_config_has_it_only_where_nothing_else_does():
    seeded, drawn = make_layer(seed=3), make_layer()
    for layer in (seeded, drawn):
        layer.build((None, 16, 8))
    assert seeded.get_config()["rotation_seed"] is None
    values = drawn.rotation_seed.numpy().tolist()
    assert drawn.get_config()["rotation_seed"] == values
    seeded.rotation_seed.assign(values)
    assert seeded.get_config()["rotation_seed"] == values
    for layer in (seeded, drawn):
        copy = LSHSelfAttention.from_config(layer.get_config())
        copy.build((None, 16, 8))
        assert copy.rotation_seed.numpy().tolist() == values


@pytest.mark.parametrize("value", [3, [1], [1, 2, 3], [1, 0.5], "ab"])
def test_a_bad_one_is_refused(value):
    with pytest.raises(ValueError, match="Received: rotation_seed="):
        make_layer(rotation_seed=value)


def test_a_config_while_a_graph_is_traced():
    layer = make_layer()
    configs = []

    @tf.function(autograph=False)
    def call(x):
        outputs = layer(x)
        configs.append(layer.get_config())
        return outputs

    np.testing.assert_allclose(call(tf.constant(X)), layer(X), atol=1e-5)
    # The layer was built within, and hashes alike in each call.
    np.testing.assert_array_equal(call(tf.constant(X)), call(tf.constant(X)))
    assert configs[0]["rotation_seed"] is None
    assert layer.get_config()["rotation_seed"] is not None


def test_an_unbuilt_layer_does_not_take_a_files_variables():
    store = {}
    make_model().layers[-1].save_own_variables(store)
    with pytest.raises(ValueError, match="never built"):
        make_layer().load_own_variables(store)


@pytest.mark.slow
def test_exports_hold_it(tmp_path):
    model = make_model()
    expected = model(X).numpy()
    model.export(str(tmp_path / "keras"), verbose=False)
    tf.saved_model.save(model, str(tmp_path / "tensorflow"))
    before = model.layers[-1].rotation_seed.numpy()
    model.layers[-1].rotation_seed.assign(before + 1)
    assert not np.allclose(model(X), expected)
    loaded = tf.saved_model.load(str(tmp_path / "keras"))
    np.testing.assert_allclose(loaded.serve(X), expected, atol=1e-5)
    loaded = tf.saved_model.load(str(tmp_path / "tensorflow"))
    (found,) = loaded.signatures["serving_default"](tf.constant(X)).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_checkpoints_hold_it(tmp_path):
    one, two = make_model(), make_model()
    path = tf.train.Checkpoint(model=one).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=two).restore(path)
    assert seed_of(two) == seed_of(one)
    np.testing.assert_array_equal(two(X), one(X))


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_every_device_has_it(jit_compile, two_replicas):
    plain = make_model()
    with two_replicas.scope():
        model = keras.Model.from_config(plain.get_config())
    model.set_weights(plain.get_weights())
    model.compile(jit_compile=jit_compile)
    np.testing.assert_allclose(model.predict(X, verbose=0), plain(X), atol=1e-5)
