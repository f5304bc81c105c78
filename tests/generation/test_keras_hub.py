"""The samplers of KerasHub itself, where it is installed."""

import pytest

from keras_reformer.generation import BeamSampler
from tests.support import tiny

hub = pytest.importorskip("keras_hub", exc_type=ImportError).samplers

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4]]
OTHERS = [[1, 2], [3, 4]]


@pytest.fixture(scope="module")
def model():
    return tiny.make_spread_model()


def lists(texts):
    return [text.tolist() for text in texts]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        hub.GreedySampler,
        lambda: hub.TopKSampler(k=1, seed=1),
        lambda: hub.TopPSampler(p=1e-6, seed=1),
        lambda: hub.RandomSampler(temperature=1e-4, seed=1),
        lambda: hub.BeamSampler(num_beams=1),
        lambda: hub.ContrastiveSampler(k=1),
    ],
    ids=["greedy", "top_k", "top_p", "random", "beam", "contrastive"],
)
def test_samplers_that_leave_one_token_are_greedy(model, make, jit):
    sampler = make()
    for prompts, length in ((PROMPTS, 20), (OTHERS, 9)):
        expected = lists(model.generate(prompts, length, "greedy"))
        texts = model.generate(prompts, length, sampler, jit_compile=jit)
        assert lists(texts) == expected


def test_beams(model):
    texts = model.generate(PROMPTS, 20, hub.BeamSampler(num_beams=3))
    assert lists(texts) == lists(model.generate(PROMPTS, 20, BeamSampler(3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: hub.TopKSampler(k=5, seed=seed),
        lambda seed: hub.TopPSampler(p=0.95, seed=seed),
        lambda seed: hub.RandomSampler(seed=seed),
    ],
    ids=["top_k", "top_p", "random"],
)
def test_seeds(model, make):
    def draw(seed):
        return str(lists(model.generate(PROMPTS, 40, make(seed))))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_contrastive_search_looks_at_all_tokens(model):
    texts = lists(
        model.generate(PROMPTS, 20, hub.ContrastiveSampler(k=3, alpha=0.7))
    )
    assert texts != lists(model.generate(PROMPTS, 20, "greedy"))
    for prompt, text in zip(PROMPTS[::2], texts[::2], strict=True):
        sampler = hub.ContrastiveSampler(k=3, alpha=0.7)
        assert lists(model.generate([prompt], 20, sampler)) == [text]


def test_stop_tokens(model):
    options = {"stop_token_ids": [0, 10]}
    expected = lists(model.generate(PROMPTS, 20, "greedy", **options))
    texts = model.generate(PROMPTS, 20, hub.GreedySampler(), **options)
    assert lists(texts) == expected
