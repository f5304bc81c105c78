"""Blocks of equal recipes become one loop, which changes nothing else."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.layers import (
    FeedForward,
    LocalSelfAttention,
    LSHSelfAttention,
    PreNormalization,
    ReversibleBlock,
    ReversibleSequence,
)
from keras_reformer.layers.stateless import recipe_of
from keras_reformer.ops.reversible import scan
from keras_reformer.ops.reversible.coupling import PureFunction
from tests.conftest import EXECUTIONS
from tests.layers.test_reversible_gradients import (
    built,
    check_against_plain,
    gradient_function,
)
from tests.layers.test_reversible_sequence import (
    LENGTH,
    SHAPE,
    Scale,
    make_inputs,
    register,
    simple,
)


@register
class Counts(keras.layers.Layer):
    """A weight, a state that each call in training changes, and a loss."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def call(self, inputs, training=None):
        outputs = keras.ops.sin(inputs * self.scale) * (1 + self.calls)
        self.add_loss(keras.ops.mean(outputs**2))
        if training:
            self.calls.assign(self.calls + 1)
        return outputs


def branch(layer, seed):
    return PreNormalization(layer, dropout=0.1, seed=seed)


def make_sequence(turns):
    """LSH and local blocks in turn; each layer has a seed of its own."""
    lsh = functools.partial(LSHSelfAttention, num_hashes=2, num_buckets=4)
    attention = [lsh, LocalSelfAttention] * turns
    options = {"chunk_length": 4, "causal": True, "dropout": 0.1}
    return ReversibleSequence(
        [
            ReversibleBlock(
                branch(kind(2, 3, seed=seed, **options), 100 + seed),
                branch(FeedForward(7, dropout=0.1, seed=200 + seed), seed),
            )
            for seed, kind in enumerate(attention)
        ]
    )


@pytest.fixture
def loops(monkeypatch):
    """How often the passes of a loop over blocks were traced."""
    counts = []
    original = scan.ScannedStack.__init__

    def init(self, branches, count):
        counts.append(count)
        original(self, branches, count)

    monkeypatch.setattr(scan.ScannedStack, "__init__", init)
    return counts


@pytest.mark.parametrize(
    "name", [pytest.param("graph", marks=pytest.mark.slow), "xla"]
)
def test_equal_plain_backpropagation(name, loops):
    # Float32's rounding of six blocks differs among processors.
    keras.config.set_dtype_policy("float64")
    sequence = built(make_sequence(3))
    mask = tf.constant(np.arange(LENGTH) < np.array([[LENGTH], [9]]))
    run = gradient_function(sequence, mask=mask)
    inputs = tf.cast(make_inputs(), "float64")
    check_against_plain(sequence, run, [inputs], EXECUTIONS[name], 1e-12)
    assert loops == [3]


def test_losses_and_changes_of_every_block(loops):
    sequence = built(simple(*(Counts() for _ in range(8))))
    for index, layer in enumerate(sequence.non_trainable_variables):
        layer.assign(index)
    run = gradient_function(sequence)
    check_against_plain(sequence, run, [make_inputs()], EXECUTIONS["graph"])
    assert loops == [4]
    calls = [int(v) for v in sequence.non_trainable_variables]
    assert calls == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, None])
def test_length_that_is_not_known_while_tracing(batch, loops):
    sequence = built(make_sequence(2))

    def run(x):
        variables = [v.value for v in sequence.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(sequence(x, training=True) ** 2)
        return tape.gradient(loss, [x, *variables])

    spec = tf.TensorSpec((batch, None, SHAPE[-1]))
    x = make_inputs()[:batch]
    check_against_plain(
        sequence,
        run,
        [x],
        lambda f: tf.function(f, autograph=False, input_signature=[spec]),
    )
    assert loops == [2]


@pytest.mark.parametrize("training, name", [(False, "graph"), (True, "eager")])
def test_no_loop_at_inference_nor_eagerly(training, name, loops):
    sequence = built(make_sequence(2))
    EXECUTIONS[name](lambda x: sequence(x, training=training))(make_inputs())
    assert not loops


def nodes(sequence):
    """How many operations the graph of a training step has."""
    run = tf.function(gradient_function(built(sequence)), autograph=False)
    graph = run.get_concrete_function(make_inputs()).graph.as_graph_def()
    functions = graph.library.function
    return len(graph.node) + sum(len(f.node_def) for f in functions)


def test_graph_does_not_grow_with_depth():
    few, many = nodes(make_sequence(2)), nodes(make_sequence(6))
    # Eight blocks more bring their weights; each alone has a thousand nodes.
    assert many - few < 8 * 300


# === Recipes ===


def recipes(*layers):
    for layer in layers:
        layer.build(SHAPE)
    return [recipe_of(layer, True) for layer in layers]


def test_names_and_seeds_are_in_no_recipe():
    one, other = recipes(
        branch(FeedForward(7, dropout=0.1, seed=1, name="one"), 3),
        branch(FeedForward(7, dropout=0.1, seed=2, name="other"), 4),
    )
    assert one == other is not None


@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.2}, {"gated": True}, {"dtype": "mixed_bfloat16"}, {}],
)
def test_other_options_are_another_recipe(options):
    one, other = FeedForward(7), FeedForward(7, **options)
    other.build(SHAPE)
    if not options:
        other.output_dense.trainable = False
    first, second = recipes(one)[0], recipe_of(other, True)
    assert first != second


def test_functions_of_one_name_are_not_one():
    def scaled(factor):
        def activation(x):
            return factor * x

        return activation

    one, other = recipes(
        *(FeedForward(7, activation=scaled(factor)) for factor in (1.0, 2.0))
    )
    assert one != other or one is None


def test_a_layer_without_a_config_has_no_recipe():
    class Unsaved(Scale):
        def get_config(self):
            raise NotImplementedError

    assert recipes(Unsaved()) == [None]


@pytest.mark.parametrize(
    "names, count",
    [
        ("ab", 1),
        ("abab", 2),
        ("ababab", 3),
        ("aaaaaa", 3),
        ("abcdabcd", 2),
        ("ababcd", 1),
        ("abababa", 1),
        ("", 1),
    ],
)
def test_repetitions(names, count):
    branches = [PureFunction(None, [], [], signature=name) for name in names]
    assert scan.num_scan_steps(branches) == count


def test_unknown_recipes_repeat_nothing():
    assert scan.num_scan_steps([PureFunction(None, [], [])] * 4) == 1
