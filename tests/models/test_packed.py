"""Rows of packed documents in whole models: documents in rows of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reformer
from keras_reformer import data
from keras_reformer.models.targets import targets
from tests.support import packed, tiny
from tests.support.executions import EXECUTIONS

SEGMENT_IDS = packed.make_segment_ids(1, length=37, documents=4)
IDS = tiny.make_ids(batch=2, length=37)
OPTIONS = {"dtype": "float64", "max_sequence_length": 40}


def make_model(**options):
    """A causal model whose weights show every influence."""
    return tiny.make_spread_model(**{**OPTIONS, **options})


def loss_and_gradients(model, ids, **others):
    """The sum over the tokens that have a next one."""
    with tf.GradientTape() as tape:
        likelihood, weight = model.log_likelihood({"token_ids": ids, **others})
        total = tf.reduce_sum(likelihood)
    variables = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(total, variables, unconnected_gradients="zero")
    gradients = [np.asarray(tf.convert_to_tensor(x)) for x in gradients]
    return float(total), float(tf.reduce_sum(weight)), gradients


def assert_packed_equals_separate(model, seed=1, rows=2, executions=("eager",)):
    segment_ids = packed.make_segment_ids(seed, rows, length=37, documents=4)
    ids = tiny.make_ids(batch=rows, length=37, seed=seed)
    x = {"token_ids": tf.constant(ids), "segment_ids": tf.constant(segment_ids)}
    calls = [EXECUTIONS[name](lambda x: model(x)) for name in executions]
    found = [np.asarray(call(x)) for call in calls]
    total, weight, gradients = loss_and_gradients(
        model, ids, segment_ids=segment_ids
    )
    parts = []
    for row, place in packed.documents(segment_ids):
        alone = ids[row : row + 1, place]
        for logits in found:
            np.testing.assert_allclose(
                logits[row : row + 1, place], model(alone), atol=1e-6
            )
        parts.append(loss_and_gradients(model, alone))
    totals, weights, by_part = zip(*parts, strict=True)
    np.testing.assert_allclose(total, sum(totals), rtol=1e-6)
    assert weight == sum(weights)
    for found, *each in zip(gradients, *by_part, strict=True):
        np.testing.assert_allclose(found, sum(each), atol=1e-6, rtol=1e-6)


def test_packed_equals_separate():
    assert_packed_equals_separate(make_model(), rows=1)


@pytest.mark.slow
@pytest.mark.parametrize("bias", ["alibi", "relative", None])
@pytest.mark.parametrize(
    "embedding", ["axial", "learned", "sinusoidal", "rotary", None]
)
def test_all_positions_begin_anew(embedding, bias):
    model = make_model(
        position_embedding=embedding, position_bias=bias, rotary_layers=None
    )
    assert_packed_equals_separate(model, executions=EXECUTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("attention", ["lsh", "local"])
def test_deeper_models(attention, recompute):
    model = make_model(
        attention_layers=attention,
        num_layers=3,
        recompute=recompute,
        num_hashes=3,
        merge="mean",
    )
    for seed in range(2):
        assert_packed_equals_separate(model, seed)


def test_each_document_decodes_as_it_was_packed():
    model = make_model(dtype="float32")
    logits = model({"token_ids": IDS, "segment_ids": SEGMENT_IDS})
    row, place = max(
        packed.documents(SEGMENT_IDS), key=lambda x: x[1].stop - x[1].start
    )
    alone = IDS[row : row + 1, place]
    length = alone.shape[1]
    hidden, cache = model.backbone.prefill(
        alone[:, :3], np.ones((1, 3), bool), length
    )
    states = [hidden]
    for position in range(3, length):
        hidden, cache = model.backbone.decode(
            alone[:, position : position + 1],
            cache,
            np.array([position], "int32"),
        )
        states.append(hidden)
    decoded = model.head(keras.ops.concatenate(states, axis=1))
    np.testing.assert_allclose(decoded, logits[row, place][None], atol=1e-5)


# The second row ends with padding.
MASK = np.arange(37) < [[37], [30]]
PACKED = {
    "token_ids": IDS,
    "segment_ids": np.where(MASK, SEGMENT_IDS, 9),
    "padding_mask": MASK,
}


def last_documents():
    """Each row's last document as a prompt of its own."""
    return [
        ids[segments == segments[mask][-1]].tolist()
        for ids, segments, mask in zip(*PACKED.values(), strict=True)
    ]


@pytest.fixture(scope="module")
def decoder():
    return make_model(dtype="float32", max_sequence_length=64)


def test_rows_go_on_from_their_last_documents(decoder):
    """The text is that of full passes over the rows, documents and all."""
    starts = last_documents()
    longest = max(map(len, starts)) + 8
    texts = decoder.generate(PACKED, longest, "greedy")
    for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
        assert len(text) == longest and text[: len(start)].tolist() == start
        new = text[len(start) :]
        before, segments = (
            PACKED[name][row][MASK[row]]
            for name in ("token_ids", "segment_ids")
        )
        logits = decoder(
            {
                "token_ids": np.append(before, new)[None],
                "segment_ids": np.append(
                    segments, np.full_like(new, segments[-1])
                )[None],
            }
        )
        best = np.argmax(logits[0, len(before) - 1 : -1], axis=-1)
        np.testing.assert_array_equal(best, new)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "top_p", "beam", "greedy"])
def test_texts_of_packed_rows_are_those_of_separate_prompts(decoder, sampler):
    options = {"max_length": 40, "sampler": sampler, "seed": 4}
    texts = decoder.generate(PACKED, **options)
    expected = decoder.generate(last_documents(), **options)
    for text, other in zip(texts, expected, strict=True):
        np.testing.assert_array_equal(text, other)
    if sampler == "beam":
        return
    parts = zip(*decoder.stream(PACKED, **options), strict=True)
    for start, part, text in zip(last_documents(), parts, texts, strict=True):
        np.testing.assert_array_equal(np.concatenate([start, *part]), text)


@pytest.mark.slow
def test_a_masked_model():
    model = keras_reformer.ReformerMaskedLM(
        backbone=tiny.make_backbone(causal=False, **OPTIONS)
    )
    logits = model({"token_ids": IDS, "segment_ids": SEGMENT_IDS})
    for row, place in packed.documents(SEGMENT_IDS):
        np.testing.assert_allclose(
            logits[row, place][None],
            model(IDS[row : row + 1, place]),
            atol=1e-6,
        )


# --- The loss ---


def test_no_label_is_of_another_document():
    mask = np.arange(37) < [[37], [30]]
    inputs = {
        "token_ids": tf.constant(IDS),
        "padding_mask": tf.constant(mask),
        "segment_ids": tf.constant(SEGMENT_IDS),
    }
    labels, weights = targets(inputs, None, None, tiny.VOCABULARY)
    last = np.append(SEGMENT_IDS[:, 1:] != SEGMENT_IDS[:, :-1], 2 * [[1]], 1)
    _, valid = tiny.shifted(IDS, mask)
    np.testing.assert_array_equal(weights, valid * (last == 0))
    kept = weights.numpy() > 0
    np.testing.assert_array_equal(
        labels.numpy()[kept], np.roll(IDS, -1, axis=1)[kept]
    )
    # With labels of their own users decide.
    _, weights = targets(inputs, tf.constant(IDS), None, tiny.VOCABULARY)
    np.testing.assert_array_equal(weights, mask)


def fit_loss(model, x, **options):
    model.compile(keras.optimizers.SGD(0.0), **options)
    return model.fit(x, verbose=0, batch_size=100).history["loss"][0]


def test_fit_on_packed_rows_is_fit_on_documents():
    """One step each: rows of documents, and documents padded to one length."""
    texts = [row[row > 0].tolist() for row in tiny.make_ids(5, 15, seed=3)]
    documents = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(texts))
    rows = next(iter(data.pack_documents(documents, 40).batch(10)))
    alone = {
        "token_ids": keras.utils.pad_sequences(texts, 40, padding="post"),
        "padding_mask": np.arange(40) < [[len(x)] for x in texts],
    }
    model = make_model(**tiny.SMALLEST)
    found = fit_loss(model, rows, run_eagerly=True)
    expected = fit_loss(model, alone, run_eagerly=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "options",
    [{"jit_compile": False}, {"jit_compile": True}, "engine"],
    ids=str,
)
def test_every_way_to_train(options, policy):
    if options == "engine":
        pytest.importorskip("jax")
        from keras_reformer.distribute import JaxEngine

        options = {"engine": JaxEngine()}
    x = {"token_ids": IDS, "segment_ids": SEGMENT_IDS}
    losses = []
    for each in ({"run_eagerly": True}, options):
        model = make_model(
            dtype=policy, num_layers=4, query_key_kernel_size=2, seed=1
        )
        model.compile(keras.optimizers.SGD(0.01), **each)
        losses.append(model.fit(x, epochs=3, verbose=0).history["loss"])
    tolerance = 1e-4 if policy == "float32" else 0.05
    np.testing.assert_allclose(*losses, rtol=tolerance)


@pytest.mark.slow
def test_replicas_train_as_one_device_does(two_replicas):
    x = {
        "token_ids": np.tile(IDS, (2, 1)),
        "segment_ids": np.tile(SEGMENT_IDS, (2, 1)),
    }
    expected = fit_loss(make_model(dtype="float32"), x)
    with two_replicas.scope():
        model = make_model(dtype="float32")
    np.testing.assert_allclose(fit_loss(model, x), expected, rtol=1e-5)


def test_in_a_functional_model():
    model = make_model(**tiny.SMALLEST)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "segment_ids")
    }
    outer = keras.Model(inputs, model(inputs))
    x = {"token_ids": IDS, "segment_ids": SEGMENT_IDS}
    np.testing.assert_allclose(outer(x), model(x), atol=1e-12)
    shapes = {name: value.shape for name, value in x.items()}
    assert model.compute_output_shape(shapes) == (2, 37, tiny.VOCABULARY)


# --- Refusals ---


@pytest.mark.parametrize("as_batches", [False, True])
def test_the_data_of_fit_evaluate_and_predict_is_checked(as_batches):
    model = make_model(**tiny.SMALLEST)
    model.compile(run_eagerly=True)
    x = {"token_ids": IDS, "segment_ids": SEGMENT_IDS[:, ::-1].copy()}
    error, methods = ValueError, (model.fit, model.evaluate, model.predict)
    if as_batches:
        x = tf.data.Dataset.from_tensors(x)
        error, methods = tf.errors.InvalidArgumentError, methods[:1]
    for method in methods:
        with pytest.raises(error, match="must not decrease along a row"):
            method(x, verbose=0)


@pytest.mark.parametrize(
    "segment_ids, received",
    [
        (SEGMENT_IDS[:, :-1], r"segment_ids.shape=\(2, 36\)"),
        (SEGMENT_IDS.astype("float32"), "segment_ids.dtype=float32"),
    ],
    ids=["shape", "dtype"],
)
def test_other_segment_ids_are_refused(segment_ids, received):
    model = make_model(**tiny.SMALLEST)
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        model({"token_ids": IDS, "segment_ids": segment_ids})


def test_one_answer_a_row_is_of_one_document():
    x = {"token_ids": IDS, "segment_ids": SEGMENT_IDS}
    backbone = tiny.make_backbone(causal=False, **tiny.SMALLEST)
    for model in (
        keras_reformer.ReformerClassifier(backbone=backbone, num_classes=2),
        keras_reformer.ReformerQuestionAnswering(backbone=backbone),
    ):
        with pytest.raises(ValueError, match="without segment_ids. Received"):
            model(x)


def test_prompts_are_refused_as_rows_to_fit_are(decoder):
    x = {"token_ids": IDS, "segment_ids": SEGMENT_IDS[:, ::-1]}
    for method in (decoder.generate, decoder.stream):
        with pytest.raises(ValueError, match="must not decrease along a row"):
            method(x, max_length=39)
    # Of a document alone, not of the row.
    (start, _) = last_documents()
    with pytest.raises(ValueError, match=rf"prompts\[0\]\)={len(start)}"):
        decoder.generate(PACKED, max_length=len(start) - 1)


def test_a_cache_goes_on_with_one_document(decoder):
    with pytest.raises(ValueError, match="rows of their own"):
        decoder.backbone.prefill(PACKED, None, 40)


def test_rings_of_chunks_take_none():
    model = tiny.make_model(scope="chunk", wrap=True, local_chunk_length=6)
    with pytest.raises(ValueError, match="Received: wrap=True"):
        model({"token_ids": IDS, "segment_ids": SEGMENT_IDS})
