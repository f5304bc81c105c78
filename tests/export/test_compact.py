import os

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export.compact import shorten_names


class Model(tf.Module):
    """Nested scopes, a loop, a branch, a variable and an assertion."""

    def __init__(self):
        self.weight = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        with tf.name_scope("a_long_name/of_many_layers/one_in_another"):
            check = tf.debugging.assert_positive(x, "must be positive")
            with tf.control_dependencies([check]):
                y = tf.reduce_sum(x) * self.weight
            y = tf.while_loop(
                lambda y: tf.reduce_sum(y) < 50, lambda y: [2 * y], [y]
            )[0]
            return {"y": tf.cond(y[0] > 9, lambda: y + 1, lambda: y - 1)}


def test_short_names_change_no_answer(tmp_path):
    model, folder = Model(), str(tmp_path)
    tf.saved_model.save(model, folder, model.serve)
    path = os.path.join(folder, "saved_model.pb")
    before = os.path.getsize(path)
    shorten_names(folder)
    assert os.path.getsize(path) < before
    with open(path, "rb") as file:
        assert b"one_in_another/Sum" not in file.read()
    loaded = tf.saved_model.load(folder)
    for x in ([1.0], [3.0, 4.0], [200.0]):
        expected = model.serve(tf.constant(x))["y"]
        for function in (loaded.serve, loaded.signatures["serving_default"]):
            answer = function(x=tf.constant(x))["y"]
            np.testing.assert_array_equal(answer, expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="be positive"):
        loaded.serve(tf.constant([-1.0]))
