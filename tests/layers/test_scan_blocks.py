"""Equal blocks become one loop, which changes nothing else."""

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
from keras_reformer.layers.scan_signature import known_signature
from keras_reformer.ops.reversible import scan
from tests.support.executions import EXECUTIONS
from tests.support.stacks import (
    LENGTH,
    SHAPE,
    Scale,
    built,
    check_against_plain,
    gradient_function,
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
    "name", ["graph", pytest.param("xla", marks=pytest.mark.slow)]
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
    layers = [Counts() for _ in range(8)]
    sequence = built(simple(*layers, scan_blocks=True))
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


@pytest.mark.slow
def test_graph_does_not_grow_with_depth():
    few, many = nodes(make_sequence(2)), nodes(make_sequence(6))
    # Eight blocks more bring their weights; each alone has a thousand nodes.
    assert many - few < 8 * 300


# === Which blocks are equal ===


def signatures(*layers):
    for layer in layers:
        layer.build(SHAPE)
    return [known_signature(layer, True) for layer in layers]


def test_names_seeds_and_weights_options_do_not_count():
    one, other = signatures(
        branch(FeedForward(7, dropout=0.1, seed=1, name="one"), 3),
        branch(
            FeedForward(
                7,
                dropout=0.1,
                seed=2,
                name="other",
                kernel_initializer="zeros",
                kernel_regularizer="l2",
                kernel_constraint="non_neg",
            ),
            4,
        ),
    )
    assert one == other is not None


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.2},
        {"gated": True},
        {"dtype": "mixed_bfloat16"},
        {"activity_regularizer": "l2"},
        {},
    ],
)
def test_other_options_are_another_signature(options):
    one, other = FeedForward(7), FeedForward(7, **options)
    other.build(SHAPE)
    if not options:
        other.output_dense.trainable = False
    assert signatures(one)[0] != known_signature(other, True) is not None


def scaled(factor):
    def activation(x):
        return factor * x

    return activation


def test_functions_of_one_name_are_not_one():
    one, other = signatures(
        *(FeedForward(7, activation=scaled(factor)) for factor in (1.0, 2.0))
    )
    assert one != other
    shared = scaled(1.0)
    one, other = signatures(
        FeedForward(7, activation=shared), FeedForward(7, activation=shared)
    )
    assert one == other is not None


class Unserializable:
    def __call__(self, x):
        return x


class OwnRegularizer(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x)

    def get_config(self):
        return {}


class BrokenRegularizer(OwnRegularizer):
    def get_config(self):
        return {"factor": self.factor}


class OwnDense(keras.layers.Dense):
    pass


def own_call():
    layer = keras.layers.Dense(SHAPE[-1])
    layer.call = lambda inputs: inputs
    return layer


@pytest.mark.parametrize(
    "make",
    [
        Scale,
        own_call,
        lambda: OwnDense(SHAPE[-1]),
        lambda: PreNormalization(Scale()),
        lambda: keras.layers.Lambda(scaled(2.0)),
        lambda: keras.layers.TimeDistributed(OwnDense(3)),
        lambda: FeedForward(7, activity_regularizer=OwnRegularizer()),
        lambda: FeedForward(7, activity_regularizer=BrokenRegularizer()),
        lambda: keras.layers.Dense(3, activation=Unserializable()),
    ],
)
def test_of_what_a_user_made_nothing_is_known(make):
    assert signatures(make()) == [None]


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.Dense(SHAPE[-1], activation="relu"),
        lambda: keras.layers.LayerNormalization(),
        lambda: keras.layers.TimeDistributed(keras.layers.Dense(3)),
        lambda: keras.layers.GRU(SHAPE[-1], return_sequences=True),
        lambda: PreNormalization(keras.layers.Dense(SHAPE[-1])),
    ],
)
def test_layers_of_keras_are_known(make):
    one, other = signatures(make(), make())
    assert one == other is not None


@register
class Unsaved(Scale):
    """A user's layer that cannot be saved."""

    def get_config(self):
        raise NotImplementedError


def test_layers_that_cannot_be_saved_can_be_scanned(loops):
    branches = [PreNormalization(Unsaved()) for _ in range(4)]
    sequence = built(simple(*branches, scan_blocks=True))
    tf.function(gradient_function(sequence), autograph=False)(make_inputs())
    assert loops == [2]


@register
class Scaled(keras.layers.Layer):
    """A user's layer whose config says nothing of its factor."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

    def call(self, inputs):
        return keras.ops.tanh(self.factor * inputs * self.scale)

    def get_config(self):
        return super().get_config()


def test_a_layer_of_incomplete_config_does_not_run_as_its_neighbour(loops):
    sequence = built(simple(*(Scaled(0.5 * n) for n in range(1, 7))))
    run = gradient_function(sequence)
    check_against_plain(sequence, run, [make_inputs()], EXECUTIONS["graph"])
    assert not loops


@pytest.mark.parametrize("scan_blocks", [True, "auto", False])
def test_users_layers_are_scanned_where_the_user_says_so(scan_blocks, loops):
    layers = [Scaled(2.0, name=f"scaled_{n}") for n in range(6)]
    sequence = built(simple(*layers, scan_blocks=scan_blocks))
    run = gradient_function(sequence)
    check_against_plain(sequence, run, [make_inputs()], EXECUTIONS["graph"])
    assert loops == ([3] if scan_blocks is True else [])


@pytest.mark.slow
def test_known_blocks_are_not_scanned_where_the_user_says_so(loops):
    sequence = built(make_sequence(2))
    sequence.scan_blocks = False
    run = tf.function(gradient_function(sequence), autograph=False)
    run.get_concrete_function(make_inputs())
    assert not loops


def wide(units):
    return PreNormalization(FeedForward(units))


@pytest.mark.parametrize(
    "layers, received",
    [
        ([Scaled(1.0), Scaled(), Scaled(2.0), Scaled()], "settings .*2.0"),
        ([Scale(), Scaled(), Scaled(), Scaled()], "classes .*Scale.*Scaled"),
        ([wide(3), Scale(), wide(4), Scale()], r"weights .*\(5, 4\)"),
        ([wide(3), wide(4), wide(4), wide(3)], r"weights .*\(5, 4\)"),
    ],
)
def test_blocks_that_visibly_differ_are_refused(layers, received):
    sequence = simple(*layers, scan_blocks=True)
    inputs = make_inputs()
    sequence(inputs)
    with pytest.raises(ValueError, match=r"blocks\[1\], of " + received):
        sequence(inputs, training=True)


def test_a_layer_at_several_places_is_refused():
    shared = Counts()
    sequence = simple(shared, Scaled(), shared, Scaled(), scan_blocks=True)
    with pytest.raises(ValueError, match="several places"):
        sequence(make_inputs(), training=True)


def test_one_block_or_a_period_of_blocks_may_be_scanned(loops):
    inputs = make_inputs()
    simple(Scale(), Scale(), scan_blocks=True)(inputs, training=True)
    layers = [Scaled(1.0), Scaled(), Scaled(2.0), Scaled()] * 2
    layers = [Scaled(layer.factor) for layer in layers]
    sequence = built(simple(*layers, scan_blocks=True))
    run = gradient_function(sequence)
    check_against_plain(sequence, run, [inputs], EXECUTIONS["graph"])
    assert loops == [2]


def test_what_scan_blocks_may_be():
    for value in ("yes", None, 1):
        with pytest.raises(ValueError, match=f"scan_blocks={value!r}"):
            simple(Scale(), Scale(), scan_blocks=value)
    config = simple(Scale(), Scale(), scan_blocks=True).get_config()
    assert ReversibleSequence.from_config(config).scan_blocks is True
    # Of files from before there was a choice.
    del config["scan_blocks"]
    assert ReversibleSequence.from_config(config).scan_blocks == "auto"
