"""Small checkpoints in the published layouts, made up."""

import numpy as np

CONFIG = {
    "vocab_size": 13,
    "hidden_size": 12,
    "feed_forward_size": 10,
    "num_attention_heads": 3,
    "attention_head_size": 4,
    "attn_layers": ["local", "lsh"],
    "local_attn_chunk_length": 4,
    "lsh_attn_chunk_length": 8,
    "num_buckets": 4,
    "num_hashes": 2,
    "axial_pos_shape": [4, 8],
    "axial_pos_embds_dim": [5, 7],
    "max_position_embeddings": 32,
    "is_decoder": True,
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
}


def body(config=CONFIG, seed=0):
    """A state dict of the bare model, with its prefix."""
    rng = np.random.default_rng(seed)
    dim, inner = config["hidden_size"], config["feed_forward_size"]
    wide = config["num_attention_heads"] * config["attention_head_size"]
    shapes = {"embeddings.word_embeddings.weight": (config["vocab_size"], dim)}
    (first, second), (width, rest) = (
        config[name] for name in ("axial_pos_shape", "axial_pos_embds_dim")
    )
    name = "embeddings.position_embeddings.weights."
    shapes |= {f"{name}0": (first, 1, width), f"{name}1": (1, second, rest)}
    for index, kind in enumerate(config["attn_layers"]):
        layer = f"encoder.layers.{index}."
        attention = f"{layer}attention."
        lsh = ["query_key", "value"]
        projections = lsh if kind == "lsh" else ["query", "key", "value"]
        for each in projections:
            shapes[f"{attention}self_attention.{each}.weight"] = (wide, dim)
        forward = f"{layer}feed_forward."
        shapes |= {
            f"{attention}layer_norm.weight": (dim,),
            f"{attention}layer_norm.bias": (dim,),
            f"{attention}output.dense.weight": (dim, wide),
            f"{forward}layer_norm.weight": (dim,),
            f"{forward}layer_norm.bias": (dim,),
            f"{forward}dense.dense.weight": (inner, dim),
            f"{forward}dense.dense.bias": (inner,),
            f"{forward}output.dense.weight": (dim, inner),
            f"{forward}output.dense.bias": (dim,),
        }
    shapes |= {
        "encoder.layer_norm.weight": (2 * dim,),
        "encoder.layer_norm.bias": (2 * dim,),
    }
    return {
        f"reformer.{name}": rng.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }


def language_model(config=CONFIG, seed=0):
    """A state dict with a language model's head."""
    rng = np.random.default_rng(seed + 1)
    vocabulary, dim = config["vocab_size"], config["hidden_size"]
    kernel = rng.normal(size=(vocabulary, 2 * dim)).astype("float32")
    bias = rng.normal(size=vocabulary).astype("float32")
    return {
        **body(config, seed),
        "lm_head.decoder.weight": kernel,
        "lm_head.bias": bias,
    }


def without_prefix(weights):
    """The state dict of the bare model."""
    return {
        name.removeprefix("reformer."): array
        for name, array in weights.items()
        if name.startswith("reformer.")
    }


def trax_weights(config=CONFIG, seed=0, nested=False):
    """trax's nested tuples of the same language model.

    Args:
        config: of the state dict.
        seed: of the state dict.
        nested: bool. Feed-forward layers as in the published files.
    """
    state = language_model(config, seed)

    def take(name):
        return state[f"reformer.{name}"]

    def norm(name):
        return take(f"{name}.weight"), take(f"{name}.bias")

    def heads(array):
        wide, dim = array.shape
        count = config["num_attention_heads"]
        return array.reshape(count, wide // count, dim).transpose(0, 2, 1)

    entries = []
    for index, kind in enumerate(config["attn_layers"]):
        layer = f"encoder.layers.{index}."
        names = ["query_key", "value"]
        names = names if kind == "lsh" else ["query", "key", "value"]
        inside = f"{layer}attention.self_attention."
        output = take(f"{layer}attention.output.dense.weight").T
        count = config["num_attention_heads"]
        attention = (
            *(heads(take(f"{inside}{each}.weight")) for each in names),
            output.reshape(count, -1, output.shape[-1]),
        )
        dense = tuple(
            (take(f"{name}.weight").T, take(f"{name}.bias"))
            for name in (
                f"{layer}feed_forward.dense.dense",
                f"{layer}feed_forward.output.dense",
            )
        )
        feed_forward = (
            norm(f"{layer}feed_forward.layer_norm"),
            dense[0],
            (),
            (),
            dense[1],
            (),
        )
        if nested:
            feed_forward = ((), ((), (), feed_forward))
        entries += [
            ((norm(f"{layer}attention.layer_norm"), ()), attention),
            (),
            (feed_forward, ()),
            (),
        ]
    name = "embeddings.position_embeddings.weights."
    positions = tuple(take(f"{name}{axis}")[None] for axis in range(2))
    return (
        (),
        take("embeddings.word_embeddings.weight"),
        (),
        positions,
        (),
        tuple(entries),
        (),
        norm("encoder.layer_norm"),
        (),
        (state["lm_head.decoder.weight"].T, state["lm_head.bias"]),
    )
