"""The loader of TensorFlow Serving gives the answers of Python."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export.check import prediction_service, runner
from tests.support.tiny_exports import IDS, LENGTH, LENGTHS, VOCABULARY

SCORE = {"token_ids": IDS, "lengths": LENGTHS}


@pytest.fixture(scope="module")
def c(program, exported):
    with runner.Runner(program, exported) as c:
        yield c


@pytest.fixture(scope="module")
def client(c):
    if prediction_service.missing():
        pytest.skip(prediction_service.missing())
    with (
        prediction_service.serving(c) as address,
        prediction_service.client(address) as client,
    ):
        yield client


@pytest.fixture(params=["c", "client"])
def ask(request):
    """The C program itself, and a client of the server around it."""
    return request.getfixturevalue(request.param).run


@pytest.mark.parametrize("name", ["serve", "serving_default", "score"])
def test_answers_equal_those_of_python(ask, reference, name):
    inputs = SCORE if name == "score" else {"token_ids": IDS}
    expected = reference.ask(name, inputs)
    received = ask(name, inputs)
    assert received.keys() == expected.keys()
    for key, value in expected.items():
        assert received[key].dtype == value.dtype
        np.testing.assert_allclose(received[key], value, atol=1e-5)


@pytest.mark.parametrize(
    "name, inputs, message",
    [
        ("serve", {"token_ids": IDS[:0]}, "must not be empty"),
        ("serve", {"token_ids": IDS[:, :0]}, "must not be empty"),
        ("serve", {"token_ids": IDS + VOCABULARY}, "token_ids"),
        ("serve", {"token_ids": IDS - VOCABULARY}, "token_ids"),
        (
            "serve",
            {"token_ids": np.zeros((1, LENGTH + 1), "int32")},
            f"at most {LENGTH} positions",
        ),
        ("serve", {"token_ids": IDS[0]}, "not compatible with expected shape"),
        ("serve", {"token_ids": IDS[..., None]}, "not compatible"),
        ("serve", {"token_ids": IDS[0, 0]}, "not compatible"),
        ("serve", {"token_ids": IDS.astype("float32")}, "int32"),
        ("serve", {"token_ids": IDS.astype("int64")}, "int32"),
        ("serve", {}, "token_ids"),
        ("score", {"token_ids": IDS, "lengths": LENGTHS + 1}, "lengths"),
        ("score", {"token_ids": IDS, "lengths": LENGTHS[:1]}, "lengths"),
        ("score", {"token_ids": IDS, "lengths": LENGTHS[:, None]}, "shape"),
    ],
)
def test_bad_requests_are_refused_and_the_next_is_answered(
    ask, name, inputs, message
):
    with pytest.raises(runner.RequestError, match=message) as refused:
        ask(name, inputs)
    assert refused.value.code == tf.errors.INVALID_ARGUMENT
    assert ask("score", SCORE)["num_tokens"].tolist() == [36, 22]


def test_the_server_knows_its_signatures(client):
    with pytest.raises(runner.RequestError, match="not found") as refused:
        client.run("no_such", SCORE)
    assert refused.value.code == tf.errors.FAILED_PRECONDITION
    with pytest.raises(runner.RequestError, match="Expected the inputs"):
        client.run("serve", SCORE)
    assert client.run("", {"token_ids": IDS}).keys() == {"logits"}


def test_equal_requests_get_equal_answers(c):
    first = c.run("serve", {"token_ids": IDS})["logits"]
    c.run("serve", {"token_ids": IDS[:, :5]})
    again = c.run("serve", {"token_ids": IDS})["logits"]
    np.testing.assert_array_equal(first, again)


def test_a_folder_that_holds_no_model(program, tmp_path):
    with pytest.raises(ValueError, match="no SavedModel"):
        runner.Runner(program, str(tmp_path))


def test_a_model_that_does_not_load(program, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "variables" / "variables.index").write_bytes(b"broken")
    with runner.Runner(program, str(copy)) as broken:
        with pytest.raises(RuntimeError, match="The C program ended"):
            broken.run("score", SCORE)
