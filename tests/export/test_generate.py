"""The signature `generate`: the loop inside of the graph."""

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.export import export_saved_model
from keras_reformer.generation import row_seeds
from tests.support.tiny_exports import causal_lm

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5]]
LONGEST = 40
STOPS = [3]


@pytest.fixture(scope="module")
def model():
    return causal_lm()


@pytest.fixture(scope="module")
def loaded(model, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export") / "tiny")
    path = export_saved_model(model, folder, stop_token_ids=STOPS)
    return tf.saved_model.load(path)


def make_request(prompts=PROMPTS, **options):
    lengths = np.array([len(prompt) for prompt in prompts], "int32")
    token_ids = np.zeros((len(prompts), lengths.max() + 2), "int32")
    for row, prompt in zip(token_ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    request = {
        "token_ids": token_ids,
        "lengths": lengths,
        "max_length": np.full(len(prompts), LONGEST, "int32"),
        "seed": row_seeds(7, len(prompts)),
        "temperature": np.ones(len(prompts), "float32"),
        **options,
    }
    return {name: tf.constant(x) for name, x in request.items()}


def texts(loaded, request):
    answer = loaded.signatures["generate"](**request)
    token_ids, lengths = answer["token_ids"].numpy(), answer["lengths"].numpy()
    behind = np.arange(token_ids.shape[1]) >= lengths[:, None]
    assert (token_ids[behind] == 0).all()
    return [row[:n].tolist() for row, n in zip(token_ids, lengths, strict=True)]


@pytest.mark.parametrize("seed", [0, pytest.param(7, marks=pytest.mark.slow)])
def test_texts_are_those_of_generate(model, loaded, seed):
    expected = model.generate(PROMPTS, LONGEST, seed=seed, stop_token_ids=STOPS)
    found = texts(loaded, make_request(seed=row_seeds(seed, len(PROMPTS))))
    assert found == [text.tolist() for text in expected]


def test_a_row_depends_on_no_other_row(loaded):
    request = make_request()
    together = texts(loaded, request)
    assert texts(loaded, request) == together
    for row, text in enumerate(together):
        alone = {name: x[row : row + 1] for name, x in request.items()}
        assert texts(loaded, alone) == [text]


def test_each_row_has_its_own_length_and_temperature(loaded):
    cold = texts(loaded, make_request(temperature=np.full(3, 1e-3, "float32")))
    mixed = texts(
        loaded,
        make_request(
            max_length=np.array([5, 1, 20], "int32"),
            temperature=np.array([1e-3, 1.0, 1e-3], "float32"),
        ),
    )
    assert mixed[0] == cold[0][:5]
    assert mixed[1] == PROMPTS[1]
    assert mixed[2] == cold[2][:20]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": np.zeros(3, "float32")},
        {"max_length": np.full(3, 65, "int32")},
        {"max_length": np.full(3, 2, "int32")},
        {"lengths": np.array([0, 1, 1], "int32")},
        {"token_ids": np.full((3, 14), 11, "int32")},
        {"seed": np.zeros(2, "int32")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_requests_are_refused_and_the_next_is_answered(loaded, options):
    (name,) = options
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        loaded.signatures["generate"](**make_request(**options))
    assert len(texts(loaded, make_request())) == 3
