import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import static_state
from keras_reformer.layers.static_state import StaticState


class Layer(keras.layers.Layer):
    """One that has settings and parts of every kind."""

    def __init__(self):
        super().__init__()
        self.rate = 0.5
        self.flag = True
        self.sizes = [1000, 2000]
        self.table = {"a": np.zeros(3)}
        self.dense = keras.layers.Dense(3)
        self.inner = keras.Sequential([keras.Input((3,)), Own()])
        self.dense.build((None, 3))


class Own(keras.layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3, 3))
        self._hidden = 1

    def call(self, inputs):
        return inputs @ self.kernel * self._hidden


def set_hidden(layer):
    (inner,) = layer.inner.layers
    inner._hidden = 2


def add_part(layer):
    layer.other = keras.layers.Dense(3)


CHANGES = {
    "number": lambda x: setattr(x, "rate", 0.6),
    "its type": lambda x: setattr(x, "flag", 1),
    "list": lambda x: x.sizes.append(1),
    "list's order": lambda x: x.sizes.reverse(),
    "dict": lambda x: x.table.update({"a": np.zeros(3)}),
    "dict's key": lambda x: x.table.update({"b": x.table.pop("a")}),
    "activation": lambda x: setattr(x.dense, "activation", keras.ops.tanh),
    "lora": lambda x: x.dense.enable_lora(1),
    "quantization": lambda x: x.dense.quantize("int8"),
    "policy": lambda x: setattr(x, "dtype_policy", "mixed_bfloat16"),
    "sublayer": lambda x: setattr(x, "dense", keras.layers.Dense(3)),
    "another sublayer": add_part,
    "in a model": set_hidden,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_traces_hold_fixed(change):
    layer = Layer()
    before = StaticState(layer)
    assert StaticState(layer) == before
    change(layer)
    assert StaticState(layer) != before


def test_what_traces_do_not_hold():
    layer = Layer()
    before = StaticState(layer)
    layer.rate, layer.sizes = float("0.5"), [int("1000"), 2000]
    layer.trainable = False
    layer.inner.trainable = True
    layer.dense.kernel.assign(layer.dense.kernel + 1.0)
    layer.inner.compile(keras.optimizers.SGD(), "mse")
    layer.inner.fit(np.ones((2, 3)), np.ones((2, 3)), verbose=0)
    layer.dense(np.ones((2, 3)))
    assert StaticState(layer) == before


def test_tensors_of_old_graphs_do_not_count():
    layer = Layer()

    @tf.function
    def trace(x):
        layer.last = x

    trace(tf.ones(2))
    before = StaticState(layer)
    trace(tf.ones((2, 2)))
    assert StaticState(layer) == before
    layer.last = tf.ones(2)
    assert StaticState(layer) != before


def test_freed_objects_are_told_from_their_successors():
    layer, states = Layer(), []
    for _ in range(20):
        layer.table = {"a": np.zeros(1000)}
        states.append(StaticState(layer))
    assert all(one != two for one, two in itertools.pairwise(states))


def test_things_that_are_no_layers():
    assert StaticState(len) == StaticState(len)
    assert StaticState(len) != StaticState(max)
    assert StaticState({"k": 1}) != StaticState({"k": 1.0})
    assert StaticState([1], []) != StaticState([], [1])
    assert StaticState(1) != 1


def test_names_of_later_layers_stay_as_they_are():
    static_state._attributes_of_all_layers.cache_clear()
    keras.layers.Layer()
    number = int(keras.layers.Layer().name.split("_")[-1])
    StaticState(keras.layers.Layer(name="a"))
    assert keras.layers.Layer().name == f"layer_{number + 1}"


def test_cycles():
    layer = Layer()
    layer.sizes.append(layer.sizes)
    layer.table.update({"layer": layer})
    assert StaticState(layer) == StaticState(layer)
