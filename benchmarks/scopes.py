"""How far decoding from caches is from full passes, by scope and depth.

    python benchmarks/run.py scopes [--length 256] [--prompt 128]

A model with random weights reads a prompt of random tokens; the tokens that
follow are decoded one by one, and each one's logits are compared with those
of a full pass over the sequence up to it. Prints the largest difference in
shares of the largest logit, and how many greedy choices differ.
"""

import itertools

VOCABULARY = 258
CHUNK = 32
KEYS = ("scope", "depth")
QUICK = {"depths": [1], "length": 66, "prompt": 64, "batch_size": 1}


def add_options(add):
    add("--depths", type=int, nargs="+", default=[1, 2, 4, 6])
    add("--length", type=int, default=256)
    add("--prompt", type=int, default=128)
    add("--batch-size", type=int, default=4)


def cases(options):
    for scope, depth in itertools.product(("bucket", "chunk"), options.depths):
        yield {
            "scope": scope,
            "depth": depth,
            "shape": [options.batch_size, options.length],
            "prompt": options.prompt,
        }


def work(case):
    import numpy as np

    model = make_model(case["scope"], case["depth"], case["shape"][1])
    rng = np.random.default_rng(1)
    ids = rng.integers(0, VOCABULARY, case["shape"], dtype="int32")
    found = decoded(model, ids, case["prompt"])
    expected = full_passes(model, ids, case["prompt"])
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    differ = (found.argmax(-1) != expected.argmax(-1)).mean()
    return {"gap": float(gap), "differ": float(differ)}


def make_model(scope, depth, length):
    import keras

    import keras_reformer

    keras.utils.set_random_seed(0)
    return keras_reformer.ReformerCausalLM(
        vocabulary_size=VOCABULARY,
        num_layers=depth,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=length,
        attention_layers=("lsh",),
        chunk_length=CHUNK,
        num_hashes=2,
        scope=scope,
        seed=0,
        dtype="float64",
    )


def decoded(model, ids, prompt):
    """Logits of the positions behind a prompt, from caches."""
    import numpy as np
    import tensorflow as tf

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
    import numpy as np
    import tensorflow as tf

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, None))])
    def last(ids):
        return model(tf.cast(ids, "int32"), training=False)[:, -1]

    lengths = range(prompt + 1, ids.shape[1] + 1)
    outputs = [last(ids[:, :length].astype("float32")) for length in lengths]
    return np.stack(outputs, axis=1)


def tables(records, options):
    yield (
        "decoding beside full passes, float64",
        ("scope", "depth", "largest gap", "greedy choices that differ"),
        [
            (
                record["scope"],
                record["depth"],
                f"{record['gap']:.1e}",
                f"{record['differ']:.1%}",
            )
            for record in records
        ],
    )
