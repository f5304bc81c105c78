import numpy as np
import pytest

from keras_reformer.generation import (
    GreedySampler,
    RandomSampler,
    Sampler,
    TopKSampler,
    TopPSampler,
    generate,
    get_sampler,
)

VOCABULARY = 6
LONGEST = 200
PROBABILITIES = np.array([0.4, 0.05, 0.3, 0.05, 0.2, 0.0])
DRAWS = 4000


def log(probabilities):
    return np.log(np.maximum(probabilities, 1e-30)).astype("float32")


def frequencies(sampler, probabilities=PROBABILITIES):
    rows = np.tile(log(probabilities), (DRAWS, 1))
    tokens = sampler(rows, np.random.default_rng(0))
    assert tokens.dtype == "int32"
    return np.bincount(tokens, minlength=len(probabilities)) / DRAWS


def assert_drawn_from(sampler, expected):
    expected = np.array(expected) / np.sum(expected)
    seen = frequencies(sampler)
    assert (seen[expected == 0] == 0).all()
    # More than five standard deviations.
    np.testing.assert_allclose(seen, expected, atol=0.04)


# --- Samplers ---


def test_greedy():
    seen = frequencies(GreedySampler())
    assert seen.tolist() == [1.0, 0, 0, 0, 0, 0]


def test_greedy_takes_the_first_of_equals():
    logits = np.array([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]], "float32")
    assert GreedySampler()(logits, None).tolist() == [1, 0]


def test_random():
    assert_drawn_from(RandomSampler(), PROBABILITIES)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature(temperature):
    assert_drawn_from(
        RandomSampler(temperature), PROBABILITIES ** (1 / temperature)
    )


def test_low_temperature_is_greedy():
    assert frequencies(RandomSampler(1e-3)).argmax() == 0
    assert frequencies(RandomSampler(1e-3))[0] == 1.0


@pytest.mark.parametrize(
    "k, expected",
    [
        (1, [0.4, 0, 0, 0, 0, 0]),
        (2, [0.4, 0, 0.3, 0, 0, 0]),
        (3, [0.4, 0, 0.3, 0, 0.2, 0]),
        (50, PROBABILITIES),
    ],
)
def test_top_k(k, expected):
    assert_drawn_from(TopKSampler(k), expected)


@pytest.mark.parametrize(
    "p, expected",
    [
        (1e-6, [0.4, 0, 0, 0, 0, 0]),
        (0.39, [0.4, 0, 0, 0, 0, 0]),
        (0.5, [0.4, 0, 0.3, 0, 0, 0]),
        (0.8, [0.4, 0, 0.3, 0, 0.2, 0]),
        (1.0, PROBABILITIES),
    ],
)
def test_top_p(p, expected):
    assert_drawn_from(TopPSampler(p), expected)


@pytest.mark.parametrize("sampler", [TopKSampler(2), TopPSampler(0.6)])
def test_rows_are_restricted_each_on_its_own(sampler):
    one = [0.5, 0.4, 0.1]
    logits = np.tile(log([one, one[::-1]]), (500, 1))
    tokens = sampler(logits, np.random.default_rng(0))
    assert set(tokens[::2]) == {0, 1}
    assert set(tokens[1::2]) == {1, 2}


def test_large_and_missing_logits():
    logits = np.array([[1e30, 0.0, -np.inf], [-np.inf, 3e4, 3e4]], "float32")
    for name in ("greedy", "random", "top_k", "top_p"):
        first, second = get_sampler(name)(logits, np.random.default_rng(0))
        assert first == 0
        assert second in (1, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSampler(0.0),
        lambda: TopKSampler(temperature=-1.0),
        lambda: TopKSampler(0),
        lambda: TopPSampler(0.0),
        lambda: TopPSampler(1.5),
        lambda: get_sampler("beam"),
    ],
)
def test_bad_samplers(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_samplers_by_name():
    kinds = [type(get_sampler(n)) for n in ("greedy", "random", "top_k")]
    assert kinds == [GreedySampler, RandomSampler, TopKSampler]
    own = TopPSampler(0.3)
    assert get_sampler(own) is own


# --- The loop ---


class Counting:
    """A model that says after each token the next number, and remembers."""

    def __init__(self):
        self.calls = []

    def __call__(self, token_ids, lengths):
        self.calls.append((token_ids.copy(), lengths.copy()))
        last = token_ids[range(len(lengths)), lengths - 1]
        return 50.0 * np.eye(VOCABULARY)[(last + 1) % VOCABULARY]


def run(prompts, max_length, model=None, **options):
    options = {"sampler": "greedy", **options}
    return generate(
        model or Counting(),
        prompts,
        max_length,
        vocabulary_size=VOCABULARY,
        max_sequence_length=LONGEST,
        **options,
    )


def as_lists(texts):
    assert all(isinstance(text, np.ndarray) for text in texts)
    assert all(text.dtype == "int32" for text in texts)
    return [text.tolist() for text in texts]


def test_prompts_of_unequal_length():
    texts = as_lists(run([[3], [1, 1, 4], [0, 5]], 5))
    assert texts == [[3, 4, 5, 0, 1], [1, 1, 4, 5, 0], [0, 5, 0, 1, 2]]


def test_batch_of_prompts():
    texts = as_lists(run(np.array([[0, 1], [3, 3]]), 4))
    assert texts == [[0, 1, 2, 3], [3, 3, 4, 5]]


def test_prompts_stay_as_they_are():
    prompts = [[1], [2, 3]]
    run(prompts, 6)
    assert prompts == [[1], [2, 3]]


def test_prompt_that_is_long_enough():
    model = Counting()
    assert as_lists(run([[1, 1, 1], [2]], 3, model)) == [[1, 1, 1], [2, 3, 4]]
    assert as_lists(run([[1, 1]], 2, model)) == [[1, 1]]
    # Finished rows are not computed.
    assert [len(lengths) for _, lengths in model.calls] == [1, 1]


def test_stop_tokens_end_a_text_and_stay():
    texts = as_lists(run([[1], [3], [5]], 6, stop_token_ids=[4, 0]))
    assert texts == [[1, 2, 3, 4], [3, 4], [5, 0]]


@pytest.mark.parametrize("stops", [np.array([4, 0]), (4, 0), {4, 0}])
def test_kinds_of_stop_tokens(stops):
    assert as_lists(run([[1]], 6, stop_token_ids=stops)) == [[1, 2, 3, 4]]


def test_stop_tokens_in_a_prompt_do_not_end_it():
    assert as_lists(run([[4, 0]], 4, stop_token_ids=[4])) == [[4, 0, 1, 2]]


def test_no_stop_tokens():
    for stops in (None, []):
        assert len(run([[1]], 20, stop_token_ids=stops)[0]) == 20


def test_models_see_few_shapes():
    model = Counting()
    run([[1], [2] * 60], 150, model)
    shapes = {token_ids.shape[1] for token_ids, _ in model.calls}
    assert shapes == {64, 128, 150}
    for token_ids, lengths in model.calls:
        assert token_ids.dtype == "int32"
        assert (lengths <= token_ids.shape[1]).all()
        after = np.arange(token_ids.shape[1]) >= lengths[:, None]
        assert (token_ids[after] == 0).all()


class Fair:
    """A model to which all tokens are equally probable."""

    def __call__(self, token_ids, lengths):
        return np.zeros((len(lengths), VOCABULARY), "float32")


def test_seeds():
    def draw(seed):
        return as_lists(run([[1]], 60, Fair(), sampler="random", seed=seed))

    assert draw(5) == draw(5)
    texts = [draw(5), draw(6), draw(None), draw(None)]
    assert len({str(text) for text in texts}) == 4


def test_rows_draw_on_their_own():
    texts = as_lists(run([[1], [1]], 60, Fair(), sampler="random", seed=0))
    assert texts[0] != texts[1]


def test_own_sampler():
    class Last(Sampler):
        def restrict(self, probabilities):
            return probabilities * (np.arange(VOCABULARY) == VOCABULARY - 1)

    assert as_lists(run([[1]], 4, Fair(), sampler=Last())) == [[1, 5, 5, 5]]


@pytest.mark.parametrize(
    "prompts, length, match",
    [
        ([[1], []], 5, r"len\(prompts\[1\]\)=0"),
        ([[1] * 6], 5, r"len\(prompts\[0\]\)=6"),
        ([[1], [0, VOCABULARY]], 5, r"prompts\[1\] with \[6\]"),
        ([[-1]], 5, r"outside the vocabulary"),
        ([[1]], LONGEST + 1, "max_sequence_length=200"),
    ],
)
def test_bad_prompts(prompts, length, match):
    model = Counting()
    with pytest.raises(ValueError, match=match):
        run(prompts, length, model)
    assert not model.calls


def test_unknown_sampler():
    with pytest.raises(ValueError, match="Unknown sampler"):
        run([[1]], 5, sampler="beam")


def test_no_prompts():
    assert run([], 5) == []
