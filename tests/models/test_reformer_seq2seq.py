"""Encoder-decoders: training, decoding, files, and what they refuse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.generation import BeamSampler, RandomSampler
from keras_reformer.models import (
    ReformerBackbone,
    ReformerSeq2Seq,
    ReformerSeq2SeqBackbone,
)
from tests.support import stepwise, tiny
from tests.support.executions import EXECUTIONS
from tests.support.stacks import assert_same, set_state, state_of
from tests.support.tiny_pairs import (
    REQUEST,
    SIZES,
    VOCABULARY,
    greedily,
    make_inputs,
    make_model,
)

DEEP = {"num_layers": 2, "attention_layers": ("local", "lsh")}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def deep():
    return make_model(**DEEP, tie_embeddings=True, merge="mean")


def lists(texts):
    return [text.tolist() for text in texts]


# --- What it computes ---


def test_masks_hide_padding_of_both_sides(model):
    """Rows are what they are alone, without any padding."""
    inputs = make_inputs()
    logits = np.array(model(inputs))
    for row in range(2):
        alone = {
            f"{side}_token_ids": inputs[f"{side}_token_ids"][row : row + 1][
                :, inputs[f"{side}_padding_mask"][row]
            ]
            for side in ("encoder", "decoder")
        }
        expected = np.array(model(alone))[0]
        np.testing.assert_allclose(
            logits[row, : len(expected)], expected, atol=2e-5
        )


def test_later_tokens_and_only_they_have_no_influence(model):
    inputs = make_inputs(masks=False)
    before = np.array(model(inputs))
    inputs["decoder_token_ids"][:, 7] += 1
    inputs["decoder_token_ids"] %= VOCABULARY
    after = np.array(model(inputs))
    np.testing.assert_array_equal(after[:, :7], before[:, :7])
    assert np.abs(after[:, 7:] - before[:, 7:]).max() > 1e-3
    inputs["encoder_token_ids"][:, -1] += 1
    inputs["encoder_token_ids"] %= VOCABULARY
    last = np.array(model(inputs))
    assert (np.abs(last - after).max(axis=-1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["graph", "xla"])
@pytest.mark.parametrize(
    "options", [{}, {**DEEP, "num_layers": 4}], ids=["local", "both"]
)
def test_gradients_equal_plain_backpropagation(name, options):
    """Through the decoder's stack into the encoder's, with dropout."""
    model = make_model(**options, dropout=0.1)
    variables = [v.value for v in model.trainable_variables]
    inputs = make_inputs()

    def run():
        with tf.GradientTape() as tape:
            loss = model.training_loss(inputs)
        return loss, *tape.gradient(loss, variables)

    before, found = state_of(model), []
    for recompute in (True, False):
        set_state(model, before)
        model.backbone.sequence.recompute = recompute
        model.backbone.encoder.sequence.recompute = recompute
        found.append(EXECUTIONS[name](run)())
    assert_same(*found)
    assert all(np.any(tf.convert_to_tensor(x)) for x in found[0])


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_precisions(policy):
    model = make_model(dtype=policy)
    inputs = make_inputs()
    logits = model(inputs)
    assert logits.dtype == ("float64" if policy == "float64" else "float32")
    model.compile("sgd")
    assert np.isfinite(model.train_on_batch(inputs))
    texts = lists(model.generate(REQUEST, 20, "greedy"))
    if policy == "float64":
        assert texts == greedily(model, REQUEST, 20)


# --- Training ---


def test_loss_and_metrics_are_those_of_labels_and_of_shifted_inputs(model):
    model.compile("sgd", metrics=["accuracy"], run_eagerly=True)
    inputs = make_inputs()
    logits, ids = model(inputs), inputs["decoder_token_ids"]
    mask = inputs["decoder_padding_mask"]
    other = (ids + 1) % VOCABULARY
    for data, targets in (
        ((inputs,), tiny.shifted(ids, mask)),
        ((inputs, other), (other, mask)),
    ):
        found = model.evaluate(*data, verbose=0, return_dict=True)
        expected = tiny.numpy_results(logits, *targets)
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4)


def test_fit_learns_to_copy():
    model = make_model(num_heads=1, hidden_dim=16, chunk_length=4)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCABULARY, (64, 4)).astype("int32")
    start = np.zeros((64, 1), "int32")
    inputs = {
        "encoder_token_ids": ids,
        "decoder_token_ids": np.concatenate([start, ids[:, :-1]], axis=1),
    }
    model.compile(keras.optimizers.Adam(3e-2))
    history = model.fit(inputs, ids, epochs=4, batch_size=16, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_an_engine_trains_as_tensorflow_does():
    pytest.importorskip("jax")
    from keras_reformer.distribute import JaxEngine

    inputs, losses = make_inputs(), []
    for engine in (None, JaxEngine()):
        model = make_model()
        model.compile("sgd", engine=engine)
        history = model.fit(inputs, epochs=2, verbose=0, shuffle=False)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.slow
def test_fit_of_a_dataset_with_dropout():
    inputs = make_inputs(16)
    labels = inputs["decoder_token_ids"]
    dataset = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)
    model = make_model(**DEEP, dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(dataset, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.filterwarnings("ignore:A loss or metric")
def test_a_keras_loss_gets_logits(model):
    inputs = make_inputs(masks=False)
    data, values = (inputs, inputs["decoder_token_ids"]), []
    for loss in (None, keras.losses.SparseCategoricalCrossentropy(True)):
        model.compile("sgd", loss, run_eagerly=True)
        values.append(model.evaluate(*data, verbose=0))
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)


# --- Decoding ---


class Logits:
    """A model whose outputs, at prompts and in steps, are logits."""

    def __init__(self, model, inputs):
        self.model = model
        names = ("encoder_token_ids", "encoder_padding_mask")
        self.source = [inputs[name] for name in names]

    def prefill(self, *arguments):
        hidden, cache = self.model.backbone.prefill(*arguments, *self.source)
        return self.model.head(hidden), cache

    def decode(self, *arguments):
        hidden, cache = self.model.backbone.decode(*arguments)
        return self.model.head(hidden), cache


def test_steps_give_the_logits_of_a_full_pass(deep):
    inputs = make_inputs(len(stepwise.LENGTHS), target=30)
    inputs["decoder_padding_mask"] = None
    found = stepwise.decode(
        Logits(deep, inputs), inputs["decoder_token_ids"], stepwise.LENGTHS
    )
    assert stepwise.gap(found, deep(inputs)) < 1e-5


@pytest.mark.parametrize(
    "name", ["model", pytest.param("deep", marks=pytest.mark.slow)]
)
def test_greedy_text_is_that_of_full_passes(name, request):
    model = request.getfixturevalue(name)
    texts = lists(model.generate(REQUEST, 20, "greedy"))
    assert texts == greedily(model, REQUEST, 20)
    # Another source, another text.
    other = {**REQUEST, "encoder_token_ids": [[9, 9, 8]] * 3}
    assert lists(model.generate(other, 20, "greedy")) != texts


def test_padded_sources_and_streams(model):
    expected = lists(model.generate(REQUEST, 20, "greedy"))
    padded = {}
    for side in ("encoder", "decoder"):
        rows = keras.utils.pad_sequences(
            REQUEST[f"{side}_token_ids"], padding="post", value=-1
        )
        padded[f"{side}_token_ids"] = rows * (rows >= 0)
        padded[f"{side}_padding_mask"] = rows >= 0
    assert lists(model.generate(padded, 20, "greedy")) == expected
    texts = [list(start) for start in REQUEST["decoder_token_ids"]]
    for news in model.stream(REQUEST, 20, "greedy"):
        for text, new in zip(texts, news, strict=True):
            text.extend(new.tolist())
    assert texts == expected


@pytest.mark.slow
def test_samplers_and_executions(model):
    expected = lists(model.generate(REQUEST, 20, "greedy"))
    for options in ({"sampler": BeamSampler(1)}, {"jit_compile": True}):
        options = {"sampler": "greedy", **options}
        assert lists(model.generate(REQUEST, 20, **options)) == expected
    beams = lists(model.generate(REQUEST, 20, BeamSampler(3)))
    assert [text[:1] for text in beams] == [[0]] * 3
    drawn = [
        lists(model.generate(REQUEST, 20, RandomSampler(2.0), seed=1))
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] != expected


@pytest.mark.slow
def test_chunk_scope_decodes_rows_alone():
    """There padding would change what the encoder says."""
    options = {"attention_layers": ("lsh",), "scope": "chunk", "wrap": True}
    model = make_model(**options)
    texts = lists(model.generate(REQUEST, 20, "greedy"))
    for row, text in enumerate(texts):
        alone = {name: rows[row : row + 1] for name, rows in REQUEST.items()}
        assert lists(model.generate(alone, 20, "greedy")) == [text]


# --- Files and configs ---


def test_a_file_keeps_everything(deep, tmp_path):
    deep.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = make_inputs()
    np.testing.assert_array_equal(loaded(inputs), deep(inputs))
    assert loaded.get_config() == deep.get_config()
    table = loaded.backbone.token_embedding
    assert loaded.backbone.encoder.token_embedding is table
    assert loaded.head.embedding is table
    assert loaded.count_params() == deep.count_params()


def test_an_encoder_of_other_sizes(tmp_path):
    encoder = ReformerBackbone(
        **{**SIZES, "vocabulary_size": 5, "hidden_dim": 4}, causal=False
    )
    model = make_model(encoder=encoder)
    assert model.backbone.encoder is encoder
    assert model.backbone.token_embedding is not encoder.token_embedding
    inputs = make_inputs(masks=False)
    inputs["encoder_token_ids"] %= 5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    with pytest.raises(ValueError, match="encoder_token_ids=.*9"):
        inputs["encoder_token_ids"][0, 0] = 9
        model.evaluate(inputs, verbose=0)


# --- Bad input ---


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"encoder_token_ids": None}, "inputs=.*decoder_token_ids"),
        ({"token_ids": np.ones((4, 3), "i")}, "inputs=.*'token_ids'"),
        ({"encoder_token_ids": np.ones((4, 65), "i")}, r"shape=\(4, 65\)"),
        ({"decoder_token_ids": np.ones((4, 0), "i")}, r"shape=\(4, 0\)"),
        (
            {"decoder_token_ids": np.full((4, 3), 11, "i")},
            r"decoder_token_ids=\[11",
        ),
        (
            {"encoder_padding_mask": np.ones((4, 3), bool)},
            r"padding_mask.shape=\(4, 3\)",
        ),
    ],
    ids=["missing", "unknown", "long", "empty", "id", "mask"],
)
def test_refused_inputs(model, changes, match):
    inputs = {**make_inputs(masks=False), **changes}
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=match):
        model.fit(inputs, verbose=0)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"encoder_token_ids": [[1]]}, "1 and 3"),
        ({"encoder_token_ids": [[1], [], [2]]}, r"ids\[1\]\)=0"),
        ({"encoder_token_ids": [[1], [99], [2]]}, r"ids\[1\] with \[99\]"),
        ({"encoder_token_ids": [[1] * 65] * 3}, "=65"),
        ({"decoder_token_ids": [[], [1], [1]]}, r"prompts\[0\]\)=0"),
        ({"padding_mask": [[1]]}, "inputs=.*'padding_mask'"),
    ],
    ids=["rows", "empty", "id", "long", "start", "unknown"],
)
def test_refused_requests(model, changes, match):
    with pytest.raises(ValueError, match=match):
        model.generate({**REQUEST, **changes}, 20)
    with pytest.raises(ValueError, match="inputs=list"):
        model.generate(REQUEST["encoder_token_ids"], 20)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"causal": False}, "causal=False"),
        ({"depth": 3}, "depth"),
        ({"encoder": "big"}, "encoder='big'"),
        (
            {
                "encoder": tiny.make_backbone(causal=False),
                "share_embeddings": True,
            },
            r"Received: \(11, 16\)",
        ),
        ({"encoder": tiny.make_backbone()}, "causal=True"),
    ],
    ids=["causal", "unknown", "type", "share", "sides"],
)
def test_refused_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        ReformerSeq2SeqBackbone(**{**SIZES, **options})
    with pytest.raises(ValueError, match="backbone"):
        ReformerSeq2Seq(num_layers=1)
