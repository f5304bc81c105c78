"""Text from a model's caches is that of its full passes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reformer.generation import BeamSampler, RandomSampler, TopPSampler
from tests.support import stepwise, tiny
from tests.support.hub_samplers import Greedy
from tests.support.stepwise import LENGTHS, gap

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4]]


class Logits:
    """A model whose outputs, at prompts and in steps, are logits."""

    def __init__(self, model):
        self.model = model

    def prefill(self, token_ids, mask, capacity):
        hidden, cache = self.model.backbone.prefill(token_ids, mask, capacity)
        return self.model.head(hidden), cache

    def decode(self, token_ids, cache, positions):
        hidden, cache = self.model.backbone.decode(token_ids, cache, positions)
        return self.model.head(hidden), cache


def both(length=45, **options):
    """Logits of decoding and of one full pass, at all positions."""
    model = tiny.make_spread_model(**options)
    ids = tiny.make_ids(len(LENGTHS), length)
    expected = np.asarray(model(ids), "float64")
    return stepwise.decode(Logits(model), ids, LENGTHS), expected


def greedily(model, prompts, length):
    """Texts of full passes over each row alone."""
    last, texts = stepwise.last_of(model), []
    for prompt in prompts:
        text = [int(token) for token in prompt]
        while len(text) < length:
            logits = last(np.array([text], "int32"))
            text.append(int(logits[0].argmax()))
        texts.append(text)
    return texts


def lists(texts):
    return [text.tolist() for text in texts]


@pytest.fixture(scope="module")
def model():
    return tiny.make_spread_model()


# --- Logits ---


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 4, "num_hashes": 1},
        {"position_embedding": "learned", "position_bias": "relative"},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"position_embedding": "rotary", "merge": "mean"},
                {"position_embedding": "sinusoidal", "position_bias": "alibi"},
            )
        ),
        {
            "position_embedding": None,
            "normalization": "rms_norm",
            "num_buckets": [2, 4],
            "num_hashes": 4,
        },
        {
            "attention_layers": ("lsh",),
            "lsh_num_chunks_before": 2,
            "key_dim": 5,
            "merge": "mean",
            "tie_embeddings": True,
        },
    ],
    ids=str,
)
def test_steps_give_the_logits_of_a_full_pass(options):
    found, expected = both(**options)
    assert gap(found, expected) < 1e-5


def test_double_precision():
    found, expected = both(dtype="float64")
    assert gap(found, expected) < 1e-12


def test_low_precision():
    found, expected = both(dtype="mixed_bfloat16")
    assert gap(found, expected) < 0.1
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_hundreds_of_steps():
    found, expected = both(320, max_sequence_length=320)
    assert gap(found, expected) < 1e-5


# --- Texts ---


def test_greedy_text_is_that_of_full_passes_from_any_cache(model):
    prompts = [[1, 2, 3], tiny.make_ids(1, 60)[0].tolist()]
    texts = lists(model.generate(prompts, 72, sampler="greedy"))
    assert texts == greedily(model, prompts, 72)
    assert lists(model.generate(prompts[:1], 72, "greedy")) == texts[:1]


@pytest.mark.slow
def test_executions_agree(model):
    texts = lists(model.generate(PROMPTS, 20, "greedy"))
    compiled = model.generate(PROMPTS, 20, "greedy", jit_compile=True)
    assert lists(compiled) == texts
    tf.config.run_functions_eagerly(True)
    try:
        assert lists(model.generate(PROMPTS, 20, "greedy")) == texts
    finally:
        tf.config.run_functions_eagerly(False)


def test_samplers(model):
    """A sampler that leaves nothing but the best token is greedy."""
    expected = lists(model.generate(PROMPTS, 20, "greedy"))
    for sampler in (TopPSampler(1e-6), BeamSampler(1), Greedy()):
        assert lists(model.generate(PROMPTS, 20, sampler)) == expected


def test_stream(model):
    options = {
        "sampler": RandomSampler(3.0),
        "seed": 5,
        "stop_token_ids": [4, 8],
    }
    texts = [list(prompt) for prompt in PROMPTS]
    for news in model.stream(PROMPTS, 20, **options):
        for text, new in zip(texts, news, strict=True):
            text.extend(new.tolist())
    assert texts == lists(model.generate(PROMPTS, 20, **options))
    assert len({len(text) for text in texts}) > 1


def test_padded_prompts(model):
    """As KerasHub's tokenizers and Keras's `pad_sequences` make them."""
    expected = lists(model.generate(PROMPTS, 20, "greedy"))
    for side in ("pre", "post"):
        rows = keras.utils.pad_sequences(PROMPTS, padding=side, value=-1)
        prompts = {"token_ids": rows * (rows >= 0), "padding_mask": rows >= 0}
        assert lists(model.generate(prompts, 20, "greedy")) == expected
        texts = [list(prompt) for prompt in PROMPTS]
        for news in model.stream(rows, 20, "greedy", padding_id=-1):
            for text, new in zip(texts, news, strict=True):
                text.extend(new.tolist())
        assert texts == expected


def test_refused_requests(model):
    for options, match in [
        ({"prompts": "text"}, "prompts='text'. Turn text into"),
        ({"prompts": [1, 2]}, "single prompt is a batch of one"),
        ({"prompts": [[1]], "max_length": None}, "max_length=None"),
        ({"prompts": [[1]], "stop_token_ids": "auto"}, "stop_token_ids='auto'"),
        ({"prompts": [[1]], "sampler": TopPSampler}, "sampler=<class"),
        ({"prompts": [[1]], "padding_id": "0"}, "padding_id='0'"),
    ]:
        for method in (model.generate, model.stream):
            with pytest.raises(ValueError, match=match):
                method(**{"max_length": 5, **options})


def test_settings_of_samplers_change_later_texts(model):
    class Shift:
        """Called as those of KerasHub are."""

        shift = 0

        def __call__(self, prompt, **others):
            return prompt + self.shift

    sampler = Shift()
    for sampler.shift in (1, 2):
        texts = lists(model.generate([[1, 2, 3]], 5, sampler))
        assert [x - sampler.shift for x in texts[0][:3]] == [1, 2, 3]


def test_weights_that_change_later():
    model = tiny.make_spread_model(**tiny.SMALLEST)
    first = lists(model.generate(PROMPTS, 30, "greedy"))
    for variable in model.trainable_variables:
        variable.assign(-variable)
    texts = lists(model.generate(PROMPTS, 30, "greedy"))
    assert texts != first
    assert texts == greedily(model, PROMPTS, 30)


# --- Chunks ---


@pytest.mark.slow
def test_chunk_scope_of_one_lsh_layer():
    """Neither the other rows nor the padding of prompts move a border."""
    model = tiny.make_spread_model(scope="chunk", wrap=True)
    prompts = [*PROMPTS, tiny.make_ids(1, 19)[0].tolist()]
    texts = lists(model.generate(prompts, 26, sampler="greedy"))
    assert texts == greedily(model, prompts, 26)


def decode_greedily(model, prompt, length):
    """One row's text from a pass over its prompt, without any padding."""
    known, logits = len(prompt) - 1, Logits(model)
    _, cache = logits.prefill(
        np.array([prompt[:known]], "int32"), np.ones((1, known), bool), length
    )
    step, text = stepwise.graph(logits.decode), list(prompt)
    for position in range(known, length - 1):
        outputs, cache = step(
            np.array([text[position : position + 1]], "int32"),
            cache,
            np.array([position], "int32"),
        )
        if position + 1 == len(text):
            text.append(int(np.argmax(outputs)))
    return text


@pytest.mark.slow
def test_deep_chunk_scope_of_unequal_prompts_is_that_of_rows_alone():
    options = {"scope": "chunk", "wrap": True, "attention_layers": ("lsh",)}
    model = tiny.make_spread_model(**options)
    prompts = [tiny.make_ids(1, length)[0].tolist() for length in (19, 30)]
    texts = lists(model.generate(prompts, 50, sampler="greedy"))
    expected = [decode_greedily(model, prompt, 50) for prompt in prompts]
    assert texts == expected
