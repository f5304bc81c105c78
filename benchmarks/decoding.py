"""Time of a new token against the context before it.

    python benchmarks/decoding.py [--lengths 1024 4096 16384 65536]

A language model of 6 blocks (width 256, 4 heads, local and LSH attention in
turn, chunks of 64, 4 rounds) continues one sequence greedily. A prompt as
long as the context fills the cache; then some tokens are timed, together.
"ours" is `generate`'s loop as a graph, "ours, XLA" compiled. "exact attention"
is the same loop and model with attention to every cached token, "no cache" a
compiled full pass for each token, and `transformers` a step of its Reformer
with its cache of buckets. Each case runs in a process of its own (see
`measuring.py`). Saves `docs/decoding.png`.
"""

import argparse
import itertools
import math

import buckets
import measuring
from buckets import CHUNK

VOCABULARY, WIDTH, HEADS, FEED_FORWARD, HASHES = 258, 256, 4, 1024, 4
DEPTH = 6
TOKENS = 32
# A full pass, or a step that sees everything, is measured up to here.
LONGEST = {"no cache, XLA": 16384, "transformers Reformer": 16384}


# === Steps ===


def build(case):
    """Our model with room for the context and what follows."""
    import keras_reformer

    return keras_reformer.ReformerCausalLM(
        vocabulary_size=VOCABULARY,
        num_layers=DEPTH,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=FEED_FORWARD,
        max_sequence_length=2 * case["length"],
        num_hashes=HASHES,
        num_buckets=case["num_buckets"],
        chunk_length=CHUNK,
        seed=0,
    )


def cached_step(case, jit_compile, decoder=None):
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
    import keras_reformer
    from keras_reformer import generation, layers

    sequence = layers.ReversibleSequence(
        [
            layers.ReversibleBlock(
                layers.PreNormalization(
                    keras_reformer.MultiHeadAttention(
                        HEADS, WIDTH // HEADS, causal=True, use_bias=False
                    )
                ),
                layers.PreNormalization(layers.FeedForward(FEED_FORWARD)),
            )
            for _ in range(DEPTH)
        ]
    )
    sequence.build((None, None, WIDTH))
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


def full_pass_step(case):
    """One token by a pass over the whole context."""
    import tensorflow as tf

    model, tokens = build(case), draw_tokens(case)
    last = tf.function(lambda x: model(x)[:, -1], jit_compile=True)
    return lambda: last(tokens).numpy()


def transformers_step(case):
    """`TOKENS` more tokens, one by one, with the cache of transformers."""
    import torch
    from transformers import ReformerConfig, ReformerModelWithLMHead

    torch.set_num_threads(case["threads"])
    config = ReformerConfig(**transformers_config(case))
    model = ReformerModelWithLMHead(config).eval()
    tokens = torch.tensor(draw_tokens(case)).long()
    with torch.inference_mode():
        state = [model(tokens, use_cache=True), tokens]

    def step():
        with torch.inference_mode():
            for _ in range(TOKENS):
                output = state[0]
                token = output.logits[:, -1:].argmax(-1)
                state[0] = model(
                    token,
                    past_buckets_states=output.past_buckets_states,
                    use_cache=True,
                )

    return step


def transformers_config(case):
    """Arguments of a `ReformerConfig` of our model's shape."""
    length, last = 2 * case["length"], math.isqrt(2 * case["length"])
    return {
        "attn_layers": ["local", "lsh"] * (DEPTH // 2),
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "attention_head_size": WIDTH // HEADS,
        "feed_forward_size": FEED_FORWARD,
        "hidden_act": "gelu",
        "is_decoder": True,
        "max_position_embeddings": length,
        "axial_pos_shape": [length // last + 1, last],
        "axial_pos_embds_dim": [WIDTH // 4, WIDTH - WIDTH // 4],
        "num_hashes": HASHES,
        "num_buckets": case["num_buckets"],
        "lsh_attn_chunk_length": CHUNK,
        "local_attn_chunk_length": CHUNK,
        "hash_seed": 0,
    }


def draw_tokens(case):
    import numpy as np

    shape = (1, case["length"])
    generator = np.random.default_rng(0)
    return generator.integers(VOCABULARY, size=shape).astype("int32")


OURS = "ours, XLA"
VARIANTS = {
    OURS: (lambda case: cached_step(case, True), ("tensorflow",)),
    "ours": (lambda case: cached_step(case, False), ("tensorflow",)),
    "exact attention, XLA": (exact_step, ("tensorflow",)),
    "no cache, XLA": (full_pass_step, ("tensorflow",)),
    "transformers Reformer": (transformers_step, ("torch", "transformers")),
}


# === Cases ===


def cases(options):
    """All cases of a round, the variants of a length side by side."""
    packages = {name: VARIANTS[name][1] for name in options.variants}
    names = list(measuring.installed(packages))
    known = buckets.num_buckets([2 * length for length in options.lengths])
    for length, allocator, name in itertools.product(
        options.lengths, options.allocators, names
    ):
        if length <= LONGEST.get(name, length):
            yield {
                "variant": name,
                "length": length,
                "allocator": allocator,
                "num_buckets": known[2 * length],
            }


def title(case):
    return f"{case['length']:>7} tokens  {case['variant']:<22}"


def work(case):
    """What a worker does: prints its answer, in seconds a token."""
    found = measuring.measure(
        VARIANTS[case["variant"]][0](case), case["repeats"]
    )
    count = 1 if case["variant"].startswith("no cache") else TOKENS
    found["seconds"] = [second / count for second in found["seconds"]]
    measuring.answer(found)


# === Table and picture ===


def tables(records):
    """Milliseconds of a token, and how many times those of ours."""
    found = measuring.group(records, ("length", "variant"))
    names = list(dict.fromkeys(name for _, name in found))
    rows = []
    for length in dict.fromkeys(length for length, _ in found):
        ours = found.get((length, OURS), {}).get("seconds")
        row = [f"{length:,}"]
        for name in names:
            seconds = found.get((length, name), {}).get("seconds")
            row.append(
                f"{1e3 * seconds:.2f} ({measuring.ratio(seconds, ours)})"
                if seconds
                else ""
            )
        rows.append(row)
    yield "ms a token (times ours, XLA)", ["context", *names], rows


def plot(records, picture):
    """Time of a token against the context."""
    import matplotlib.pyplot as plt

    found = measuring.group(records, ("variant", "length"))
    figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(name for name, _ in found):
        lengths = [length for each, length in found if each == name]
        seconds = [found[name, length]["seconds"] for length in lengths]
        times = [1e3 * second for second in seconds]
        panel.plot(lengths, times, marker="o", label=name)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set(xlabel="tokens of context", ylabel="ms a token")
    panel.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside upper center", ncols=2)
    figure.savefig(picture, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    lengths = [1024, 4096, 16384, 65536]
    parser.add_argument("--lengths", type=int, nargs="+", default=lengths)
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)
    )
    measuring.add_options(parser, measuring.DOCS / "decoding.png")
    options = parser.parse_args()
    if options.worker:
        return work(options.worker)
    records = measuring.load_json(options.load)
    if not records:
        records = measuring.measure_all(
            __file__, list(cases(options)), options, title
        )
    measuring.report(list(tables(records)), options.markdown)
    plot(records, options.picture)


if __name__ == "__main__":
    main()
