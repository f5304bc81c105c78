import numpy as np
import pytest

from keras_reformer.generation import (
    BeamSampler,
    GreedySampler,
    RandomSampler,
    Sampler,
    TopKSampler,
    TopPSampler,
    get_sampler,
    row_seeds,
)

PROBABILITIES = np.array([0.4, 0.05, 0.3, 0.05, 0.2, 0.0])
DRAWS = 4000


def log(probabilities):
    return np.log(np.maximum(probabilities, 1e-30)).astype("float32")


def choose(sampler, logits, seed=3, position=0):
    """Tokens that a sampler without a state of its own chooses."""
    count = len(logits)
    tokens, parents, state = sampler.choose(
        np.asarray(logits, "float32"),
        row_seeds(seed, count),
        np.full(count, position, "int32"),
        np.zeros(count, bool),
        sampler.start(count),
    )
    assert parents is None
    assert state == ()
    assert tokens.dtype == "int32"
    return tokens.numpy()


def frequencies(sampler, probabilities=PROBABILITIES):
    rows = np.tile(log(probabilities), (DRAWS, 1))
    tokens = choose(sampler, rows)
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
    assert choose(GreedySampler(), logits).tolist() == [1, 0]


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
    tokens = choose(sampler, logits)
    assert set(tokens[::2]) == {0, 1}
    assert set(tokens[1::2]) == {1, 2}


def test_large_and_missing_logits():
    logits = np.array([[1e30, 0.0, -np.inf], [-np.inf, 3e4, 3e4]], "float32")
    for name in ("greedy", "random", "top_k", "top_p"):
        first, second = choose(get_sampler(name), logits)
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
        lambda: BeamSampler(0),
        lambda: BeamSampler(num_beams=2.5),
        lambda: TopKSampler(2.5),
        lambda: Sampler(repetition_penalty=0.0),
        lambda: get_sampler("nucleus"),
        lambda: get_sampler(None),
    ],
)
def test_bad_samplers(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_samplers_by_name():
    kinds = {
        "greedy": GreedySampler,
        "random": RandomSampler,
        "top_k": TopKSampler,
        "top_p": TopPSampler,
        "beam": BeamSampler,
    }
    for name, kind in kinds.items():
        assert type(get_sampler(name)) is kind
    own = TopPSampler(0.3)
    assert get_sampler(own) is own


def test_configs_and_equality():
    for one, other in [
        (TopKSampler(3, 0.5, 1.2), TopKSampler(4, 0.5, 1.2)),
        (TopPSampler(0.3), TopPSampler(0.4)),
        (BeamSampler(3), BeamSampler(4)),
        (GreedySampler(), RandomSampler()),
    ]:
        again = type(one)(**one.get_config())
        assert again == one
        assert hash(again) == hash(one)
        assert one != other


# --- Draws ---


def test_of_equal_logits_k_come():
    tokens = choose(TopKSampler(2), np.zeros((DRAWS, 5)))
    assert set(tokens) == {0, 1}


def test_draws_differ_by_seed_and_position():
    logits = np.zeros((200, 1000))
    first = choose(RandomSampler(), logits)
    assert (choose(RandomSampler(), logits) == first).all()
    for other in ({"seed": 4}, {"position": 1}):
        assert (choose(RandomSampler(), logits, **other) == first).mean() < 0.05
    assert len(set(first)) > 100


def test_other_rows_do_not_matter():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 9))
    for name in ("random", "top_k", "top_p"):
        whole = choose(get_sampler(name), logits)
        part = choose(get_sampler(name), logits[:7])
        assert (whole[:7] == part).all()


def test_rare_tokens_come_as_often_as_they_should():
    # The last of many tokens is where the sum of probabilities is rounded.
    probabilities = np.full(5000, 1.0 / 5000)
    logits = np.tile(log(probabilities), (DRAWS, 1))
    tokens = choose(RandomSampler(), logits)
    counts = np.histogram(tokens, bins=10, range=(0, 5000))[0]
    assert (np.abs(counts - DRAWS / 10) < 5 * np.sqrt(DRAWS / 10)).all()
