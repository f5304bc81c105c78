"""How exact training and inference are: the numbers of the README.

    python benchmarks/run.py exactness

Of a stack of local and LSH blocks with dropout 0.1 everywhere, the largest
relative difference between gradients of the reversible stack and of plain
backpropagation, over the input and all variables; and of logits of a prefix on
its own and within a longer sequence, relative to the largest logit.
"""

import keras
import language_model
import numpy as np
import steps
import tensorflow as tf

import keras_reformer
from keras_reformer import PreNormalization

KEYS = ("depth", "length")
OPTIONS = {"depths": ([2, 6, 12], "", [2]), "length": (1021, "", 67)}
AXES = {"depth": "depths", "length": "length"}
TABLE = (
    "largest relative differences, float32",
    {
        "blocks": "{depth}",
        "gradients": "{gradients:.1e}",
        "prefixes": "{prefixes:.1e}",
    },
)


def work(case):
    sizes = case["depth"], case["length"]
    gradients, prefixes = gradient_difference(*sizes), prefix_difference(*sizes)
    return {"gradients": gradients, "prefixes": prefixes}


def stack(depth, recompute):
    """A stack whose every layer draws from a seed that depends on `depth`."""
    kinds = (
        keras_reformer.LocalSelfAttention,
        keras_reformer.LSHSelfAttention,
    )
    options = {"num_heads": 2, "key_dim": 16, "causal": True, "dropout": 0.1}
    blocks = []
    for i in range(depth):
        attention = kinds[i % 2](seed=i, **options)
        feed_forward = keras_reformer.FeedForward(64, dropout=0.1, seed=i)
        block = keras_reformer.ReversibleBlock(
            PreNormalization(attention, dropout=0.1, seed=100 + i),
            PreNormalization(feed_forward, dropout=0.1, seed=200 + i),
        )
        blocks.append(block)
    return keras_reformer.ReversibleSequence(blocks, recompute=recompute)


def gradient_difference(depth, length):
    """Largest relative difference of reversible and plain gradients."""
    reversible, plain = stack(depth, True), stack(depth, False)
    inputs = keras.random.normal((1, length, 32), seed=0)
    for layer in (reversible, plain):
        layer.build((1, length, 32))
    plain.set_weights(reversible.get_weights())

    def gradients(layer):
        function = steps.gradients(layer, lambda y: tf.reduce_sum(tf.sin(y)))
        return tf.function(function, autograph=False, jit_compile=True)(inputs)

    pairs = zip(gradients(reversible), gradients(plain), strict=True)
    return max(float(tf.norm(a - b) / tf.norm(b)) for a, b in pairs)


def prefix_difference(depth, length):
    """Largest relative difference of a prefix's logits."""
    sizes = {"num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64}
    model = language_model.ours(depth, length, **sizes)
    token_ids = language_model.draw_tokens(length)
    whole = model.predict(token_ids, verbose=0)
    worst = 0.0
    for end in (1, 63, 64, 65, 500, length - 1):
        prefix = model.predict(token_ids[:, :end], verbose=0)
        worst = max(worst, np.abs(prefix - whole[:, :end]).max())
    return float(worst / np.abs(whole).max())
