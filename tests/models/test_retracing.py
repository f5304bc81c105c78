"""What a model traced once never answers for layers as they were before."""

import gc
import weakref

import keras
import numpy as np
import pytest

import keras_reformer
from keras_reformer.export.endpoints import endpoints
from tests.support import tiny

IDS = tiny.make_ids(24, 20)


def next_tokens(model):
    texts = model.generate(IDS, IDS.shape[1] + 1, "greedy")
    return np.array([text[-1] for text in texts])


def answers(model):
    """The next token and the logits of each row, from traces."""
    return next_tokens(model), model.predict(IDS, verbose=0)


def right_answers(model):
    """The same from the layers as they are, without any trace."""
    logits = np.asarray(model(IDS))
    return logits[:, -1].argmax(-1), logits


def check(model):
    """Both agree; returns the logits."""
    tokens, logits = answers(model)
    right_tokens, right_logits = right_answers(model)
    np.testing.assert_allclose(logits, right_logits, atol=1e-4)
    np.testing.assert_array_equal(tokens, right_tokens)
    return logits


def spread(variables, scale=1.0):
    rng = np.random.default_rng(7)
    for variable in variables:
        values = scale * rng.normal(size=variable.shape)
        variable.assign_add(values.astype(variable.dtype))


def changed(model, change, *arguments):
    """Checks a change; returns by how much it moved the logits."""
    _, before = right_answers(model)
    change(*(arguments or [model]))
    return np.abs(check(model) - before).max()


# --- Layers of Keras's own ---


@pytest.fixture(scope="module")
def local():
    """A model that has answered, of one local layer."""
    model = tiny.make_spread_model(**tiny.SMALLEST)
    check(model)
    return model


def dense_layers(model):
    attention = model.backbone.sequence.blocks[0].attention.layer
    return [attention.value, attention.attention_output, model.head]


def enable_lora(model):
    for layer in dense_layers(model):
        layer.enable_lora(2)
        spread([layer.lora_kernel_a, layer.lora_kernel_b])


def enable_lora_of_embedding(model):
    embedding = model.backbone.token_embedding
    embedding.enable_lora(2)
    spread([embedding.lora_embeddings_a, embedding.lora_embeddings_b])


def set_weights(model):
    weights = model.get_weights()
    model.set_weights([-w if w.dtype.kind == "f" else w for w in weights])


def freeze_and_train(model):
    model.backbone.trainable = False
    model.compile(keras.optimizers.SGD(5.0), run_eagerly=True)
    model.fit(IDS[:4], verbose=0)
    model.compile()


def replace_activation(model):
    feed_forward = model.backbone.sequence.blocks[0].feed_forward.layer
    feed_forward.activation = keras.activations.tanh


def swap_branches(model):
    block = model.backbone.sequence.blocks[0]
    block.attention, block.feed_forward = block.feed_forward, block.attention


@pytest.mark.parametrize(
    "change",
    [
        set_weights,
        freeze_and_train,
        enable_lora,
        enable_lora_of_embedding,
        replace_activation,
        swap_branches,
    ],
    ids=lambda change: change.__name__,
)
def test_answers_follow_changes(local, change):
    assert changed(local, change) > 0.1


def test_loaded_weights_of_lora(local, tmp_path):
    path = tmp_path / "model.weights.h5"
    before = check(local)
    local.save_weights(path)
    assert changed(local, spread, local.trainable_weights) > 0.1
    local.load_weights(path)
    np.testing.assert_allclose(check(local), before, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer .* `quantize` method:UserWarning")
def test_quantized_model():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    next_tokens(model)
    model.quantize("int8")
    # Rounding alone might change no token.
    model.head.kernel_scale.assign(-model.head.kernel_scale)
    # What is nearly half a step may be rounded either way.
    assert (next_tokens(model) == right_answers(model)[0]).mean() > 0.8


def test_what_stays_is_not_traced_again(local):
    answers(local)
    loop, function = local._loop("greedy", None, False), local.predict_function
    local.trainable = False
    local.trainable = True
    # What compiling changes is the step of training, which Keras drops.
    local.compile(keras.optimizers.SGD(0.1))
    assert local._loop("greedy", None, False) is loop
    assert local.predict_function is None
    local.predict_function = function
    spread(local.trainable_weights, 1e-3)
    check(local)
    assert local._loop("greedy", None, False) is loop
    assert local.predict_function is function


# --- Settings of LSH layers ---


@pytest.fixture(scope="module")
def lsh():
    """A model of one LSH layer that has answered."""
    model = tiny.make_spread_model(
        num_layers=1, attention_layers=("lsh",), num_hashes=1, num_buckets=4
    )
    answers(model)
    return model


def lsh_layer(model):
    (layer,) = model.backbone.lsh_layers().values()
    return layer


def make_rotations(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, 8, 2, 2)).astype("float32")


def test_answers_follow_settings(lsh):
    layer = lsh_layer(lsh)
    layer.num_hashes = 2
    assert next_tokens(lsh).tolist() == right_answers(lsh)[0].tolist()
    assert changed(lsh, setattr, layer, "exact_below", 50) > 0.01
    exported = endpoints(lsh)[0].function({"token_ids": IDS})["logits"]
    np.testing.assert_allclose(exported, right_answers(lsh)[1], atol=1e-4)
    layer.num_hashes, layer.exact_below = 1, None


def test_answers_follow_rotations_in_turn(lsh):
    """A freed array's successor may lie where it lay."""
    layer, tokens = lsh_layer(lsh), []
    for seed in range(3):
        layer.rotations = None
        gc.collect()
        given = make_rotations(seed)
        layer.rotations = given
        # A copy is what counts, which nobody can change.
        given *= -1
        tokens.append(next_tokens(lsh).tolist())
        assert tokens[-1] == right_answers(lsh)[0].tolist()
    assert tokens[0] != tokens[1] != tokens[2] != tokens[0]
    with pytest.raises(ValueError, match="read-only"):
        layer.rotations[:] = 0
    layer.rotations = None


def test_old_loops_are_dropped(lsh):
    layer, loops = lsh_layer(lsh), []
    for seed in range(50):
        layer.rotations = make_rotations(seed)
        loops.append(weakref.ref(lsh._loop("greedy", None, False)))
    gc.collect()
    assert sum(loop() is not None for loop in loops) == 1
    layer.rotations = None


# --- Steps ---


class ChangesActivation(keras.callbacks.Callback):
    """Has it traced by the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        activate(self.model, "tanh" if epoch else "relu")
        if epoch == 2:
            self.model.make_train_function()


def activate(model, name):
    layer = model.backbone.sequence.blocks[0].feed_forward.layer
    layer.activation = keras.activations.get(name)


def test_steps_follow_changes():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    model.compile(keras.optimizers.SGD(0.0))
    losses = []
    for name in ("tanh", "relu"):
        activate(model, name)
        losses.append(float(model.training_loss(IDS)))
        # Keras 3.13 does not do it by itself.
        model.reset_metrics()
        found = model.test_on_batch(IDS)
        np.testing.assert_allclose(found, losses[-1], rtol=1e-5)
    tanh, relu = losses
    # Ten times the tolerances here.
    assert abs(tanh - relu) > 0.004
    # A step is traced when `fit` begins, or when it is told to.
    history = model.fit(
        IDS, epochs=3, verbose=0, callbacks=[ChangesActivation()]
    )
    found = history.history["loss"]
    np.testing.assert_allclose(found, [relu, relu, tanh], rtol=1e-4)


def test_optimizers_of_before_do_not_know_lora():
    """They would leave it as it is, without a word."""
    model = tiny.make_model(**tiny.SMALLEST)
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    model.train_on_batch(IDS)
    model.head.enable_lora(2)
    with pytest.raises(ValueError, match="Unknown variable"):
        model.train_on_batch(IDS)
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    model.train_on_batch(IDS)
    assert np.abs(model.head.lora_kernel_b).max() > 0


def test_models_of_keras_keep_their_traces_until_they_are_compiled():
    layer = keras_reformer.LSHSelfAttention(
        2, 4, num_hashes=1, num_buckets=4, chunk_length=2, seed=0
    )
    model = keras.Sequential([keras.Input((20, 8)), layer])
    inputs = np.random.default_rng(0).normal(size=(2, 20, 8))
    before = model.predict(inputs, verbose=0)
    layer.exact_below = 20
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), before)
    model.compile()
    after = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(after, model(inputs), atol=1e-5)
    assert np.abs(after - before).max() > 0.01


# --- Life ---


def test_models_that_have_answered_are_collected():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    model.make_predict_function()
    next(model.stream(IDS, IDS.shape[1] + 1, "greedy"))
    gone = [weakref.ref(x) for x in (model, model.backbone.sequence)]
    del model
    gc.collect()
    assert [x() for x in gone] == [None, None]
