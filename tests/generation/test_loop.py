import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.generation import (
    BeamSampler,
    GreedySampler,
    Loop,
    RandomSampler,
    Sampler,
    TopPSampler,
    generate,
)
from tests.support import decoders
from tests.support.decoders import VOCABULARY, counting, fair, run

TABLE = decoders.make_table()
PROMPTS = [[3], [1, 1, 4], [0, 5, 2, 2, 1, 0, 3]]


def greedily(prompt, length, table=TABLE):
    text = list(prompt)
    while len(text) < length:
        text.append(int(decoders.logits_after(table, text).argmax()))
    return text


def log_probability(prompt, text, table):
    total = 0.0
    for end in range(len(prompt), len(text)):
        logits = decoders.logits_after(table, text[:end]).astype("float64")
        total += logits[text[end]] - np.log(np.exp(logits).sum())
    return total


# --- Rows, lengths, ends ---


def test_prompts_of_unequal_length():
    texts = run(counting(), [[3], [1, 1, 4], [0, 5]], 5)
    assert texts == [[3, 4, 5, 0, 1], [1, 1, 4, 5, 0], [0, 5, 0, 1, 2]]


def test_batch_of_prompts():
    texts = run(counting(), np.array([[0, 1], [3, 3]]), 4)
    assert texts == [[0, 1, 2, 3], [3, 3, 4, 5]]


def test_prompt_that_is_long_enough():
    assert run(counting(), [[1, 1, 1], [2]], 3) == [[1, 1, 1], [2, 3, 4]]
    assert run(counting(), [[1, 1]], 2) == [[1, 1]]


def test_stop_tokens_end_a_text_and_stay():
    texts = run(counting(), [[1], [3], [5]], 6, stops=(4, 0))
    assert texts == [[1, 2, 3, 4], [3, 4], [5, 0]]


def test_stop_tokens_in_a_prompt_do_not_end_it():
    assert run(counting(), [[4, 0]], 4, stops=(4,)) == [[4, 0, 1, 2]]


def test_no_stop_tokens():
    assert len(run(counting(), [[1]], 20)[0]) == 20


def test_every_step_sees_all_tokens_before():
    decoder = decoders.remembering(TABLE)
    expected = [greedily(prompt, 12) for prompt in PROMPTS]
    assert run(decoder, PROMPTS, 12) == expected


@pytest.mark.parametrize("first", [3, 63, 64, 65, 150])
def test_caches_that_grow(first):
    table = decoders.make_table(9)
    prompts = [[1, 2, 3], [2] * first]
    expected = [greedily(prompt, 190, table) for prompt in prompts]
    # Of zeros at the end a cache could lose some.
    assert all(len(set(text[-50:])) > 3 for text in expected)
    assert run(decoders.remembering(table), prompts, 190) == expected


def test_each_prompt_in_a_pass_of_its_own():
    seen = []

    def watched(token_ids, padding_mask, capacity):
        tf.py_function(
            lambda mask: seen.append(mask.numpy().tolist()), [padding_mask], []
        )
        return decoder.prefill(token_ids, padding_mask, capacity)

    decoder = decoders.remembering(TABLE, padding_matters=True)
    expected = [greedily(prompt, 12) for prompt in PROMPTS]
    assert run(decoder._replace(prefill=watched), PROMPTS, 12) == expected
    # The last token of a prompt belongs to the first step.
    assert seen == [[[False]], [[True] * 2], [[True] * 6]]


def test_executions_agree():
    decoder, options = decoders.remembering(TABLE), {"seed": 4}
    for sampler in ("top_p", BeamSampler(2)):
        texts = run(decoder, PROMPTS, 40, sampler, **options)
        assert run(decoder, PROMPTS, 40, sampler, jit=True, **options) == texts
        tf.config.run_functions_eagerly(True)
        try:
            assert run(decoder, PROMPTS, 40, sampler, **options) == texts
        finally:
            tf.config.run_functions_eagerly(False)


# --- Draws ---


def test_seeds():
    def draw(seed):
        return run(fair(), [[1]], 60, "random", seed=seed)

    assert draw(5) == draw(5)
    texts = [draw(5), draw(6), draw(None), draw(None)]
    assert len({str(text) for text in texts}) == 4


def test_rows_draw_on_their_own():
    texts = run(fair(), [[1], [1]], 60, "random", seed=0)
    assert texts[0] != texts[1]


def test_draws_depend_on_no_other_row_and_no_padding():
    decoder = decoders.remembering(TABLE)
    (alone,) = run(decoder, PROMPTS[:1], 30, "random", seed=1)
    for others in ([[2]], [[5] * 20], [[0] * 29, [1]]):
        texts = run(decoder, PROMPTS[:1] + others, 30, "random", seed=1)
        assert texts[0] == alone


def test_draws_follow_the_model():
    probabilities = np.array([0.5, 0.3, 0.2])
    decoder = decoders.following(np.tile(np.log(probabilities), (3, 1)))
    texts = run(decoder, [[0]] * 20, 200, RandomSampler(), seed=0)
    drawn = np.array(texts)[:, 1:]
    seen = np.bincount(drawn.ravel(), minlength=3) / drawn.size
    np.testing.assert_allclose(seen, probabilities, atol=0.04)


def test_own_sampler():
    class Last(Sampler):
        def restrict(self, probabilities):
            return probabilities * (np.arange(VOCABULARY) == VOCABULARY - 1)

    assert run(fair(), [[1]], 4, Last()) == [[1, 5, 5, 5]]


@pytest.mark.parametrize("penalty", [1.7, 0.5])
def test_repetition_penalty(penalty):
    text = list(PROMPTS[1])
    while len(text) < 25:
        logits = decoders.logits_after(TABLE, text).copy()
        for token in set(text):
            positive = logits[token] > 0
            logits[token] *= 1 / penalty if positive else penalty
        text.append(int(logits.argmax()))
    sampler = GreedySampler(repetition_penalty=penalty)
    decoder = decoders.remembering(TABLE)
    # Rows do not share what they have seen.
    found = run(decoder, [PROMPTS[1], PROMPTS[2]], 25, sampler)[0]
    assert found == text
    assert found != greedily(PROMPTS[1], 25)


# --- Beams ---


def test_one_beam_is_greedy():
    decoder = decoders.remembering(TABLE)
    expected = [greedily(prompt, 30) for prompt in PROMPTS]
    assert run(decoder, PROMPTS, 30, BeamSampler(1)) == expected


def test_beams_find_what_greed_misses():
    # The likelier first token leads to nothing likely.
    table = np.log(
        [[1e-6, 0.6, 0.4], [0.34, 0.33, 0.33], [1e-6, 1e-6, 1 - 2e-6]]
    )
    decoder = decoders.following(table)
    assert run(decoder, [[0]], 3) == [[0, 1, 0]]
    assert run(decoder, [[0]], 3, BeamSampler(2)) == [[0, 2, 2]]


def test_enough_beams_find_the_best():
    table = decoders.make_table(3, size=4)
    prompts, steps = [[1], [3, 2, 0]], 4
    best = []
    for prompt in prompts:
        texts = [
            prompt + list(tokens)
            for tokens in itertools.product(range(4), repeat=steps)
        ]
        best.append(
            max(texts, key=lambda t, p=prompt: log_probability(p, t, table))
        )
        assert best[-1] != greedily(prompt, len(best[-1]), table)
    decoder = decoders.remembering(table)
    for prompt, text in zip(prompts, best, strict=True):
        found = run(decoder, [prompt], len(text), BeamSampler(4**3))
        assert found == [text]
    lengths = {len(text) for text in best}
    assert len(lengths) == 2
    # Rows of a batch do not mix.
    together = run(decoder, prompts, max(lengths), BeamSampler(4**3))
    assert together[1] == best[1]


def test_a_beam_that_has_ended_keeps_its_probability():
    stop, table = 3, decoders.make_table(5, size=4)
    prompt, length = [1, 0], 6

    def cut(text):
        ends = [i for i in range(2, len(text)) if text[i] == stop]
        return text[: ends[0] + 1] if ends else text

    texts = [
        cut(prompt + list(tokens))
        for tokens in itertools.product(range(4), repeat=length - 2)
    ]
    best = max(texts, key=lambda text: log_probability(prompt, text, table))
    decoder = decoders.remembering(table)
    found = run(decoder, [prompt], length, BeamSampler(4**4), stops=(stop,))
    assert found == [best]


# --- Traces ---


def test_few_traces_serve_many_lengths():
    decoder, traces = decoders.remembering(TABLE), []

    def counted(*arguments):
        traces.append(arguments[0].shape)
        return decoder.decode(*arguments)

    loop = Loop(decoder._replace(decode=counted), TopPSampler())
    for length in range(1, 12):
        generate(loop, [[1] * length] * (1 + length % 3), 20 + length)
    assert len(traces) <= 4
