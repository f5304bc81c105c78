import keras
import numpy as np
import pytest

from keras_reformer.generation import (
    BeamSampler,
    HubLoop,
    Loop,
    RandomSampler,
    generate,
    get_sampler,
    stream,
)
from tests.support import decoders
from tests.support.decoders import LONGEST, VOCABULARY, counting, fair, run
from tests.support.hub_samplers import Greedy

TABLE = decoders.make_table()
PROMPTS = [[3], [1, 1, 4], [0, 5, 2, 2, 1, 0, 3]]


def test_prompts_stay_as_they_are():
    prompts = [[1], [2, 3]]
    run(counting(), prompts, 6)
    assert prompts == [[1], [2, 3]]


def refusing(*arguments):
    raise AssertionError("no model should run")


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
    decoder = counting()._replace(prefill=refusing, decode=refusing)
    with pytest.raises(ValueError, match=match):
        run(decoder, prompts, length)


@pytest.mark.parametrize("seed", [-1, 0.5, "a"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        run(counting(), [[1]], 5, seed=seed)


def test_no_prompts():
    loop = Loop(counting(), get_sampler("greedy"))
    assert generate(loop, [], 5) == []
    assert list(stream(loop, [], 5)) == []


@pytest.mark.parametrize("width", [1, 2, 64, 65])
def test_models_see_prompts_of_few_widths(width):
    seen = []

    def watched(token_ids, padding_mask, capacity):
        seen.append((token_ids.shape, padding_mask.shape))
        return decoder.prefill(token_ids, padding_mask, capacity)

    decoder = decoders.remembering(TABLE)
    run(decoder._replace(prefill=watched), [[1], [2] * width], 150)
    rounded = 64 if width <= 64 else 128
    assert seen == [((2, rounded), (2, rounded))]


# --- Signs of life ---


class Bar:
    """What `keras.utils.Progbar` is told."""

    made = []

    def __init__(self, target):
        self.target, self.told = target, []
        self.made.append(self)

    def update(self, current, finalize):
        self.told.append((current, finalize))


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(keras.utils, "Progbar", Bar)
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def test_bar_of_long_texts_only(bars):
    decoder = decoders.remembering(TABLE, longest=700)
    run(decoder, [[1]], 500)
    run(decoder, [[1]], 600, verbose=False)
    assert not bars
    run(decoder, [[1] * 3], 600)
    (bar,) = bars
    assert bar.target == 597
    assert len(bar.told) > 5
    assert bar.told[-1] == (597, True)
    assert not any(finished for _, finished in bar.told[:-1])


def test_bar_on_demand(bars):
    run(counting(), [[1]], 5, verbose=True)
    assert [bar.told[-1] for bar in bars] == [(4, True)]


# --- Streams ---


def joined(loop, prompts, length, **options):
    texts = [list(prompt) for prompt in prompts]
    for news in stream(loop, prompts, length, **options):
        assert all(new.dtype == "int32" and len(new) <= 1 for new in news)
        for text, new in zip(texts, news, strict=True):
            text.extend(new.tolist())
    return texts


def test_stream_is_what_generate_returns():
    loop = Loop(decoders.remembering(TABLE), RandomSampler(), (2,))
    prompts = [*PROMPTS, [1] * 70]
    texts = generate(loop, prompts, 90, seed=3)
    assert joined(loop, prompts, 90, seed=3) == [t.tolist() for t in texts]
    assert len({len(text) for text in texts}) > 1


def test_stream_comes_token_by_token():
    loop = Loop(fair(), RandomSampler())
    news = list(stream(loop, [[1]], 8, seed=1))
    assert [len(new[0]) for new in news] == [1] * 7


def test_what_cannot_stream():
    decoder = counting()
    for loop in (
        Loop(decoder, BeamSampler(2)),
        HubLoop(decoder, lambda **options: options["prompt"]),
    ):
        with pytest.raises(ValueError, match="can stream"):
            stream(loop, [[1]], 5)


def test_bad_prompts_are_refused_before_the_first_token():
    loop = Loop(counting(), get_sampler("greedy"))
    with pytest.raises(ValueError, match="outside the vocabulary"):
        stream(loop, [[-1]], 5)


# --- Samplers that run the loop themselves ---


def run_hub(sampler, prompts, length, stops=(), jit=False, decoder=None):
    decoder = decoder or decoders.remembering(TABLE)
    loop = HubLoop(decoder, sampler, stops, jit)
    return [text.tolist() for text in generate(loop, prompts, length)]


@pytest.mark.covering(1)
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("stops", [(), (2,), (0, 4)])
def test_hub_sampler(stops, jit):
    decoder = decoders.remembering(TABLE)
    for prompts, length in ((PROMPTS, 20), ([[1] * 70], 90)):
        expected = run(decoder, prompts, length, stops=stops)
        assert run_hub(Greedy(), prompts, length, stops, jit) == expected


def test_hub_sampler_in_passes_of_their_own():
    decoder = decoders.remembering(TABLE, padding_matters=True)
    found = run_hub(Greedy(), PROMPTS, 20, decoder=decoder)
    assert found == run(decoder, PROMPTS, 20)


def test_hub_sampler_has_nothing_to_do():
    assert run_hub(refusing, [[1, 2], [3, 4]], 2) == [[1, 2], [3, 4]]


def test_what_a_hub_sampler_is_told():
    def look(next, prompt, cache, index, mask, **others):
        told.update(others)
        column = keras.ops.arange(keras.ops.shape(prompt)[1])
        told["mask"] = keras.ops.all(mask == (column < index)[None])
        told["rows"] = {x.shape[0] for x in keras.tree.flatten(cache)}
        logits, states, after = next(prompt, cache, index)
        keras.tree.assert_same_structure(after, cache)
        told["shapes"] = logits.shape, states.shape
        # The last token of each prompt is in its column.
        last = others["hidden_states"][:, index - 1]
        same = keras.ops.all(keras.ops.argmax(last, -1) == prompt[:, index - 1])
        return keras.ops.where(same & told["mask"], prompt + 1, prompt)

    told = {}
    loop = HubLoop(decoders.remembering(TABLE), look, (5,), model="model")
    texts = generate(loop, [[2, 3], [1]], 4)
    assert [text.tolist() for text in texts] == [[3, 4, 1, 1], [2, 1, 1, 1]]
    assert told["model"] == "model"
    assert told["stop_token_ids"] == [5]
    assert told["rows"] == {2}
    assert told["shapes"] == ((2, VOCABULARY), (2, VOCABULARY))


def test_a_whole_text_costs_nothing_more():
    """Rows that go on behind their ends would change the order of beams."""

    def look(next, prompt, cache, index, **others):
        logits, _, _ = next(prompt, cache, index + 2)
        sure = keras.ops.max(keras.ops.softmax(logits), axis=1) > 0.99
        return keras.ops.where(sure[:, None], 5, 0 * prompt)

    texts = run_hub(look, [[1, 2, 3], [1, 2]], 5)
    assert texts == [[5] * 5, [0] * 5]


def test_hub_sampler_that_returns_something_else():
    with pytest.raises(ValueError, match="prompt's shape"):
        run_hub(lambda prompt, **others: prompt[:, :-1], [[1]], 5)
    with pytest.raises(ValueError, match="sampler"):
        get_sampler(3)


def test_rows_are_cut():
    texts = run_hub(lambda prompt, **_: prompt + 1, [[0, 1, 2], [1]], 5, (1,))
    assert [len(text) for text in texts] == [4, 2]
    assert np.all([text[-1] == 1 for text in texts])
