"""How far decoding from caches is from full passes, by scope and depth.

A model with random weights reads a prompt of random tokens; the tokens that
follow are decoded one by one, and each one's logits are compared with those
of a full pass over the sequence up to it. Prints the largest difference in
shares of the largest logit, and how many greedy choices differ.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf

import keras_reformer

VOCABULARY = 258
CHUNK = 32


def make_model(scope, depth, length):
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


def compare(scope, depth, options):
    model = make_model(scope, depth, options.length)
    rng = np.random.default_rng(1)
    shape = options.batch_size, options.length
    ids = rng.integers(0, VOCABULARY, shape, dtype="int32")
    found = decoded(model, ids, options.prompt)
    expected = full_passes(model, ids, options.prompt)
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    differ = (found.argmax(-1) != expected.argmax(-1)).mean()
    print(f"{scope:>7} {depth:>6} {gap:>12.1e} {differ:>15.1%}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    print("  scope  depth  largest gap  greedy choices that differ")
    for scope in ("bucket", "chunk"):
        for depth in (1, 2, 4, 6):
            compare(scope, depth, options)


if __name__ == "__main__":
    main()
