"""Time of a new token against the context before it.

    python benchmarks/run.py decoding [--lengths 1024 4096 16384 65536]

A language model continues one sequence greedily. A prompt as long as the
context fills the cache; then some tokens are timed, together. "ours" is
`generate`'s loop as a graph, "ours, XLA" compiled.

Steps of `generate` cannot be timed apart from its prompt through the model's
public method, so this takes the loop of `keras_reformer.generation`, by the
names in that package's `__all__`.
"""

import functools

import contenders
import language_model
import measuring
import reporting
from contenders import PUBLISHED, Contender
from language_model import FEED_FORWARD, HEADS, VOCABULARY, WIDTH

OURS, NO_CACHE = "ours, XLA", "no cache, XLA"
TRANSFORMERS = "transformers Reformer"
TOKENS = 32
# A full pass, or a step that sees everything, is measured up to here.
LONGEST = {NO_CACHE: 16384, TRANSFORMERS: 16384}


def build(case):
    """Our model with room for the context and what follows."""
    return language_model.ours(case["depth"], 2 * case["length"])


def draw_tokens(case):
    return language_model.draw_tokens(case["length"]).astype("int32")


def cached_step(case, jit_compile=True, decoder=None):
    """`TOKENS` more tokens by the loop of `generate`."""
    import numpy as np

    from keras_reformer import generation

    loop = generation.Loop(
        decoder or build(case).decoder(),
        generation.GreedySampler(),
        jit_compile=jit_compile,
    )
    length = case["length"]
    room, one = np.int32(2 * length), np.ones(1, "int32")
    request = generation.Request(room * one, 0 * one, one.astype("float32"))
    tokens, known = draw_tokens(case), np.arange(length)[None] < length - 1
    _, cache = loop.prefill(tokens, known, room)
    state = [loop.start(tokens, length * one, room, cache, request)]

    def step():
        until = state[0].column + TOKENS
        state[0] = loop.advance(state[0], until, room)
        state[0].column.numpy()

    return step


def exact_step(case):
    """The same with `MultiHeadAttention` in all blocks."""
    from keras_reformer import generation

    sequence = exact_blocks(case["depth"])
    model = build(case)
    backbone, head = model.backbone, model.head

    def prefill(token_ids, mask, capacity):
        x = backbone.embed(token_ids)
        return sequence.prefill(x, mask, capacity)

    def decode(token_ids, cache, positions, constants):
        x = backbone.embed(token_ids, positions)
        x, cache = sequence.decode(x, cache, positions)
        return head(backbone.normalization(x))[:, 0], x, cache

    decoder = generation.Decoder(
        prefill, tuple, decode, VOCABULARY, 2 * case["length"]
    )
    return cached_step(case, True, decoder)


def exact_blocks(depth):
    import keras_reformer
    from keras_reformer import layers

    def block():
        attention = keras_reformer.MultiHeadAttention(
            HEADS, WIDTH // HEADS, causal=True, use_bias=False
        )
        return layers.ReversibleBlock(
            layers.PreNormalization(attention),
            layers.PreNormalization(layers.FeedForward(FEED_FORWARD)),
        )

    sequence = layers.ReversibleSequence([block() for _ in range(depth)])
    sequence.build((None, None, WIDTH))
    return sequence


def full_pass_step(case):
    """One token by a pass over the whole context."""
    import tensorflow as tf

    model, tokens = build(case), draw_tokens(case)
    last = tf.function(lambda x: model(x)[:, -1], jit_compile=True)
    return lambda: last(tokens).numpy()


def transformers_step(case):
    """`TOKENS` more tokens, one by one, with the cache of transformers."""
    import torch

    model = language_model.published(
        case["depth"], 2 * case["length"], case["threads"], hash_seed=0
    ).eval()
    tokens = torch.tensor(draw_tokens(case)).long()
    with torch.inference_mode():
        state = [model(tokens, use_cache=True)]

    def step():
        with torch.inference_mode():
            for _ in range(TOKENS):
                output = state[0]
                state[0] = model(
                    output.logits[:, -1:].argmax(-1),
                    past_buckets_states=output.past_buckets_states,
                    use_cache=True,
                )

    return step


CONTENDERS = {
    OURS: Contender(cached_step),
    "ours": Contender(functools.partial(cached_step, jit_compile=False)),
    "exact attention, XLA": Contender(exact_step),
    NO_CACHE: Contender(full_pass_step),
    TRANSFORMERS: Contender(transformers_step, **PUBLISHED),
}
KEYS = ("length", "contender")
OPTIONS = {
    "lengths": [1024, 4096, 16384, 65536],
    "depth": 6,
    "contenders": list(CONTENDERS),
}
QUICK = {"lengths": [128], "depth": 2}


def cases(options):
    axes = {"length": options.lengths, "depth": [options.depth]}
    for case in contenders.cases(CONTENDERS, options, **axes):
        if case["length"] <= LONGEST.get(case["contender"], case["length"]):
            yield case


def work(case):
    """In seconds a token."""
    found = contenders.work(CONTENDERS, case)
    count = 1 if case["contender"] == NO_CACHE else TOKENS
    found["seconds"] = [second / count for second in found["seconds"]]
    return found


def tables(records, options):
    """Milliseconds of a token, and how many times those of ours."""
    names = list(dict.fromkeys(record["contender"] for record in records))
    rows = []
    for context, members in reporting.titled(records, "{length:,}"):
        medians = measuring.medians(members, ["contender"])
        seconds = {each["contender"]: each["seconds"] for each in medians}
        row = dict.fromkeys(names, "")
        for name, each in seconds.items():
            times = reporting.ratio(each, seconds.get(OURS))
            row[name] = f"{1e3 * each:.2f} ({times})"
        rows.append([context, *row.values()])
    yield "ms a token (times ours, XLA)", ["context", *names], rows


def plot(records, options):
    """Time of a token against the context."""
    lines = reporting.curves(records, "{contender}", "length", "seconds", 1e3)
    labels = {"xlabel": "tokens of context", "ylabel": "ms a token"}
    panel = {"lines": lines, "logarithmic": "xy", **labels}
    figure = reporting.picture([[panel]], width=6)
    figure.legend(fontsize="small", loc="outside upper center", ncols=2)
    return figure
