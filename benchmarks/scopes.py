"""How far decoding from caches is from full passes, by scope and depth.

    python benchmarks/run.py scopes [--length 256] [--prompt 128]

A model with random weights reads a prompt of random tokens; the tokens that
follow are decoded one by one, and each one's logits are compared with those
of a full pass over the sequence up to it. Prints the largest difference in
shares of the largest logit, and how many greedy choices differ.
"""

import keras
import language_model
import measuring
import numpy as np
import reporting
import tensorflow as tf

KEYS = ("scope", "depth")
OPTIONS = {
    "depths": [1, 2, 4, 6],
    "length": 256,
    "prompt": 128,
    "batch_size": 4,
}
QUICK = {"depths": [1], "length": 66, "prompt": 64, "batch_size": 1}


def cases(options):
    return measuring.grid(
        scope=["bucket", "chunk"],
        depth=options.depths,
        shape=[[options.batch_size, options.length]],
        prompt=[options.prompt],
    )


def work(case):
    model = make_model(case["scope"], case["depth"], case["shape"][1])
    ids = np.random.default_rng(1).integers(
        0, language_model.VOCABULARY, case["shape"], dtype="int32"
    )
    found = decoded(model, ids, case["prompt"])
    expected = full_passes(model, ids, case["prompt"])
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


def tables(records, options):
    columns = {
        "scope": "{scope}",
        "depth": "{depth}",
        "largest gap": "{gap:.1e}",
        "greedy choices that differ": "{differ:.1%}",
    }
    title = "decoding beside full passes, float64"
    yield title, *reporting.rows(records, columns)
