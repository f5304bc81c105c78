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


class _Trax:
    """Parts of a state dict as trax nests them."""

    def __init__(self, config, seed):
        self.state = language_model(config, seed)
        self.heads = config["num_attention_heads"]

    def take(self, name):
        return self.state[f"reformer.{name}"]

    def pair(self, name):
        return self.take(f"{name}.weight"), self.take(f"{name}.bias")

    def dense(self, name):
        kernel, bias = self.pair(name)
        return kernel.T, bias

    def projection(self, name):
        array = self.take(f"{name}.weight")
        array = array.reshape(self.heads, -1, array.shape[1])
        return array.transpose(0, 2, 1)

    def attention(self, layer, kind):
        names = ["query_key", "value"]
        names = names if kind == "lsh" else ["query", "key", "value"]
        inside = f"{layer}attention.self_attention."
        output = self.take(f"{layer}attention.output.dense.weight").T
        return (
            *(self.projection(f"{inside}{name}") for name in names),
            output.reshape(self.heads, -1, output.shape[1]),
        )

    def block(self, index, kind, nested):
        layer = f"encoder.layers.{index}."
        forward = (
            self.pair(f"{layer}feed_forward.layer_norm"),
            self.dense(f"{layer}feed_forward.dense.dense"),
            (),
            (),
            self.dense(f"{layer}feed_forward.output.dense"),
            (),
        )
        if nested:
            forward = ((), ((), (), forward))
        norm = self.pair(f"{layer}attention.layer_norm")
        attention = self.attention(layer, kind)
        return ((norm, ()), attention), (), (forward, ()), ()


def trax_weights(config=CONFIG, seed=0, nested=False):
    """trax's nested tuples of the same language model.

    Args:
        config: of the state dict.
        seed: of the state dict.
        nested: bool. Feed-forward layers as in the published files.
    """
    trax = _Trax(config, seed)
    entries = [
        entry
        for index, kind in enumerate(config["attn_layers"])
        for entry in trax.block(index, kind, nested)
    ]
    positions = tuple(
        trax.take(f"embeddings.position_embeddings.weights.{axis}")[None]
        for axis in range(2)
    )
    head = trax.state["lm_head.decoder.weight"].T, trax.state["lm_head.bias"]
    words = trax.take("embeddings.word_embeddings.weight")
    norm = trax.pair("encoder.layer_norm")
    return ((), words, (), positions, (), tuple(entries), (), norm, (), head)


def options_of(backbone):
    """A backbone's config without its name and what its layers have drawn."""
    config = backbone.get_config()
    return {k: v for k, v in config.items() if k not in ("name", "sublayers")}
