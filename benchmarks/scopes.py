"""How far decoding from caches is from full passes, by scope and depth.

    python benchmarks/run.py scopes [--length 256]

A model with random weights reads a prompt of random tokens, half the length.
Logits of the tokens that follow, decoded one by one, are compared with those of
full passes, in shares of the largest; and greedy choices.
"""

import keras
import language_model
import numpy as np
import tensorflow as tf

BATCH_SIZE = 4
KEYS = ("scope", "depth")
OPTIONS = {"depths": ([1, 2, 4, 6], "", [1]), "length": (256, "", 128)}
AXES = {"scope": ["bucket", "chunk"], "depth": "depths", "length": "length"}
TABLE = (
    "decoding beside full passes, float64",
    {
        "scope": "{scope}",
        "depth": "{depth}",
        "largest gap": "{gap:.1e}",
        "greedy choices that differ": "{differ:.1%}",
    },
)


def work(case):
    length = case["length"]
    model = make_model(case["scope"], case["depth"], length)
    draws = np.random.default_rng(1)
    shape = BATCH_SIZE, length
    ids = draws.integers(0, language_model.VOCABULARY, shape, dtype="int32")
    found = decoded(model, ids, length // 2)
    expected = full_passes(model, ids, length // 2)
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    differ = (found.argmax(-1) != expected.argmax(-1)).mean()
    return {"gap": float(gap), "differ": float(differ)}


def make_model(scope, depth, length):
    keras.utils.set_random_seed(0)
    return language_model.ours(
        depth,
        length,
        hidden_dim=64,
        intermediate_dim=128,
        attention_layers=("lsh",),
        chunk_length=32,
        num_hashes=2,
        scope=scope,
        dtype="float64",
    )


def decoded(model, ids, prompt):
    """Logits of the positions behind a prompt, from caches."""
    backbone = model.backbone
    mask = np.ones((len(ids), prompt), bool)
    _, cache = backbone.prefill(ids[:, :prompt], mask, ids.shape[1])

    @tf.function(autograph=False)
    def step(token_ids, cache, positions):
        hidden, cache = backbone.decode(token_ids, cache, positions)
        return model.head(hidden)[:, 0], cache

    outputs = []
    for position in range(prompt, ids.shape[1]):
        at = tf.fill([len(ids)], position)
        logits, cache = step(ids[:, position : position + 1], cache, at)
        outputs.append(logits.numpy())
    return np.stack(outputs, axis=1)


def full_passes(model, ids, prompt):
    """The same, each from a pass over the sequence so far."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, None))])
    def last(ids):
        return model(tf.cast(ids, "int32"), training=False)[:, -1]

    lengths = range(prompt + 1, ids.shape[1] + 1)
    outputs = [last(ids[:, :length].astype("float32")) for length in lengths]
    return np.stack(outputs, axis=1)
