import keras
import pytest
import tensorflow as tf

import keras_reformer
from tests.support.tiny import SMALLEST, make_backbone, make_ids, make_model

MAKERS = {
    "lsh": lambda: keras_reformer.LSHSelfAttention(2, 4, name="one"),
    "local": lambda: keras_reformer.LocalSelfAttention(2, 4, name="one"),
    "feed_forward": lambda: keras_reformer.FeedForward(8, name="one"),
    "dropout": lambda: keras_reformer.Dropout(0.5, name="one"),
    "pre_normalization": lambda: keras_reformer.PreNormalization(
        keras.layers.Dense(8), name="one"
    ),
    "sequence": lambda: keras_reformer.ReversibleSequence(
        [
            keras_reformer.ReversibleBlock(
                keras.layers.Dense(8), keras.layers.Dropout(0.5)
            )
        ],
        name="one",
    ),
}
SCOPES = {
    "full": {},
    "larger_than": {"output_size_threshold": 0},
    "list_of_layers": {"layer_names": ["one"]},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("graph", [False, True])
def test_layers_refuse(make, graph):
    with keras.RematScope():
        layer = make()

    def call(x):
        return layer(x, training=True)

    call = tf.function(call, autograph=False) if graph else call
    with pytest.raises(ValueError, match="outside of `keras.RematScope`"):
        call(tf.ones((2, 5, 8)))


@pytest.mark.parametrize("mode", SCOPES)
def test_modes(mode):
    with keras.RematScope(mode, **SCOPES[mode]):
        layer = MAKERS["dropout"]()
    with pytest.raises(ValueError, match="Received: Dropout in"):
        layer(tf.ones((2, 5, 8)))


def test_scopes_that_leave_layers_alone():
    with keras.RematScope("list_of_layers", layer_names=["another"]):
        layer = MAKERS["dropout"]()
    assert layer(tf.ones((2, 5, 8))).shape == (2, 5, 8)


def test_models_refuse():
    with keras.RematScope():
        model, backbone = make_model(**SMALLEST), make_backbone(**SMALLEST)
    model.compile("sgd")
    with pytest.raises(ValueError, match="outside of `keras.RematScope`"):
        model.fit(make_ids(), verbose=0)
    with pytest.raises(ValueError, match="outside of `keras.RematScope`"):
        backbone(make_ids())


def test_layers_made_outside_are_exact():
    layer = keras_reformer.LSHSelfAttention(2, 4, dropout=0.2, num_buckets=2)
    x = keras.random.normal((1, 20, 8), seed=1)

    def gradient():
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, x)

    layer(x)
    state = layer.non_trainable_variables
    values = [tf.identity(v) for v in state]
    expected = gradient()
    with keras.RematScope():
        assert (gradient() == expected).numpy().all()
