"""Signatures of encoder-decoders."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import (
    export_saved_model,
    verify_saved_model,
    warmup,
)
from keras_reformer.generation import row_seeds
from tests.support import tiny_pairs
from tests.support.tiny_pairs import LONGEST, REQUEST


@pytest.fixture(scope="module")
def model():
    return tiny_pairs.make_model()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "pairs")
    return export_saved_model(model, folder)


@pytest.fixture(scope="module")
def loaded(path):
    return tf.saved_model.load(path)


def padded(rows):
    lengths = np.array([len(row) for row in rows], "int32")
    token_ids = np.zeros((len(rows), lengths.max() + 1), "int32")
    for place, row in zip(token_ids, rows, strict=True):
        place[: len(row)] = row
    return token_ids, lengths


def make_request(**options):
    request = {}
    for side in ("encoder", "decoder"):
        ids, lengths = padded(REQUEST[f"{side}_token_ids"])
        request[f"{side}_token_ids"] = ids
        request[f"{side}_lengths"] = lengths
    return {name: tf.constant(x) for name, x in {**request, **options}.items()}


def sampling(request, seed=7):
    rows = len(REQUEST["encoder_token_ids"])
    return {
        **request,
        "max_length": tf.fill([rows], 20),
        "seed": tf.constant(row_seeds(seed, rows)),
        "temperature": tf.ones([rows]),
    }


def test_logits_and_scores(model, loaded):
    request = make_request()
    inputs = {
        f"{side}_{name}": request[f"{side}_token_ids"]
        if name == "token_ids"
        else np.arange(request[f"{side}_token_ids"].shape[1])
        < np.array(request[f"{side}_lengths"])[:, None]
        for side in ("encoder", "decoder")
        for name in ("token_ids", "padding_mask")
    }
    found = loaded.signatures["serve_padded"](**request)["logits"]
    valid = inputs["decoder_padding_mask"]
    np.testing.assert_allclose(
        np.array(found)[valid], np.array(model(inputs))[valid], atol=1e-5
    )
    scores = loaded.signatures["score"](**request)
    expected, count = model.log_likelihood(inputs)
    np.testing.assert_allclose(scores["log_likelihood"], expected, rtol=1e-5)
    np.testing.assert_array_equal(scores["num_tokens"], count)


def test_texts_are_those_of_generate(model, loaded):
    expected = model.generate(REQUEST, 20, seed=7)
    answer = loaded.signatures["generate"](**sampling(make_request()))
    found = zip(
        answer["token_ids"].numpy(), answer["lengths"].numpy(), strict=True
    )
    assert [row[:n].tolist() for row, n in found] == [
        text.tolist() for text in expected
    ]


@pytest.mark.parametrize(
    "options, match",
    [
        ({"encoder_token_ids": np.full((3, 12), 11, "i")}, "encoder_token_ids"),
        ({"encoder_lengths": np.array([0, 1, 1], "i")}, "encoder_lengths"),
        ({"decoder_token_ids": np.zeros((3, 65), "i")}, "decoder_token_ids"),
        (
            {
                "encoder_token_ids": np.zeros((2, 4), "i"),
                "encoder_lengths": np.array([4, 4], "i"),
            },
            "a row for each",
        ),
    ],
    ids=["id", "lengths", "length", "rows"],
)
def test_bad_requests_are_refused(loaded, options, match):
    with pytest.raises(tf.errors.InvalidArgumentError, match=match):
        loaded.signatures["serve_padded"](**make_request(**options))


def test_warm_up_requests_are_answered(path, loaded):
    found = warmup.read(path)
    names = [name for name, _ in found]
    assert names == ["serve", "serve_padded", "score", "generate"]
    for name, request in found:
        assert request["encoder_token_ids"].shape == (1, LONGEST)
        if name == "serve":
            tensors = {k: tf.constant(x) for k, x in request.items()}
            assert loaded.signatures[name](**tensors)["logits"].shape[1] == (
                LONGEST
            )


def test_length_buckets_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="encoder-decoder.*length_buckets"):
        export_saved_model(model, str(tmp_path / "m"), length_buckets=[8])


@pytest.mark.slow
def test_equal_logits_in_a_process_without_this_package(path, model):
    inputs = tiny_pairs.make_inputs(masks=False)
    assert verify_saved_model(path, model, inputs) < 1e-5


@pytest.mark.slow
def test_a_trainable_export_has_gradients(model, tmp_path):
    path = export_saved_model(model, str(tmp_path / "m"), trainable=True)
    loaded = tf.saved_model.load(path)
    with tf.GradientTape() as tape:
        loss = loaded.train(**make_request())["loss"]
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert all(np.any(tf.convert_to_tensor(x)) for x in gradients)
