"""One small language model, ours and that of transformers of its shape.

Width 256, 4 heads, local and LSH attention in turn, chunks of 64, 4 rounds.
"""

import math

import measuring

VOCABULARY, WIDTH, HEADS, FEED_FORWARD = 258, 256, 4, 1024
HASHES, CHUNK = 4, 64


def ours(depth, length, **options):
    """Our model with room for `length` tokens."""
    import keras_reformer

    sizes = {
        "vocabulary_size": VOCABULARY,
        "num_layers": depth,
        "num_heads": HEADS,
        "hidden_dim": WIDTH,
        "intermediate_dim": FEED_FORWARD,
        "max_sequence_length": length,
        "num_hashes": HASHES,
        "chunk_length": CHUNK,
        "seed": 0,
    }
    return keras_reformer.ReformerCausalLM(**sizes | options)


def num_buckets(length, scope="bucket"):
    """How many buckets ours takes: an int, or a list of factors."""
    layer = {"num_layers": 1, "attention_layers": ("lsh",), "scope": scope}
    config = ours(1, length, **layer).backbone.get_config()
    found = config["num_buckets"]
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def rotation_columns(length, scope="bucket"):
    """Columns of a round's rotations: half the buckets of each factor."""
    found = num_buckets(length, scope)
    return sum(found if isinstance(found, list) else [found]) // 2


def published(depth, length, threads, **options):
    """`ReformerModelWithLMHead` of the same shape, without dropout."""
    import torch
    from transformers import ReformerModelWithLMHead

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = published_config(
        length,
        attn_layers=[("local", "lsh")[i % 2] for i in range(depth)],
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        attention_head_size=WIDTH // HEADS,
        feed_forward_size=FEED_FORWARD,
        hidden_act="gelu",
        max_position_embeddings=length,
        axial_pos_shape=near_square(length),
        axial_pos_embds_dim=[WIDTH // 4, WIDTH - WIDTH // 4],
        use_cache=False,
        **options,
    )
    return ReformerModelWithLMHead(config)


def published_config(length, buckets=None, **options):
    """Of transformers: rounds, chunks and, unless given, buckets of ours."""
    from transformers import ReformerConfig

    return ReformerConfig(
        is_decoder=True,
        num_hashes=HASHES,
        num_buckets=buckets or measuring.call_elsewhere(num_buckets, length),
        lsh_attn_chunk_length=CHUNK,
        local_attn_chunk_length=CHUNK,
        hidden_dropout_prob=0.0,
        lsh_attention_probs_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0,
        **options,
    )


def near_square(length):
    """Two factors of a length, as near each other as they get."""
    first = next(n for n in range(math.isqrt(length), 0, -1) if length % n == 0)
    return [first, length // first]


def draw_tokens(length):
    import numpy as np

    generator = np.random.default_rng(0)
    return generator.integers(VOCABULARY, size=(1, length))
