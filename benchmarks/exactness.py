"""How exact training and inference are: the numbers of the README.

    python benchmarks/exactness.py

Prints, for a stack of local and LSH blocks with dropout 0.1 everywhere,

- the largest relative difference between gradients of the reversible stack
  and of plain backpropagation, over the input and all variables;
- the largest difference between logits of a prefix on its own and within a
  longer sequence, relative to the largest logit.
"""

import platform

import keras
import numpy as np
import tensorflow as tf

import keras_reformer

DEPTHS = (2, 6, 12)
LENGTH = 1021


def stack(depth, recompute):
    """A stack whose every layer draws from a seed that depends on `depth`."""
    kinds = (
        keras_reformer.LocalSelfAttention,
        keras_reformer.LSHSelfAttention,
    )
    options = {"num_heads": 2, "key_dim": 16, "causal": True, "dropout": 0.1}
    blocks = [
        keras_reformer.ReversibleBlock(
            keras_reformer.PreNormalization(
                kinds[index % 2](seed=index, **options),
                dropout=0.1,
                seed=100 + index,
            ),
            keras_reformer.PreNormalization(
                keras_reformer.FeedForward(64, dropout=0.1, seed=index),
                dropout=0.1,
                seed=200 + index,
            ),
        )
        for index in range(depth)
    ]
    return keras_reformer.ReversibleSequence(blocks, recompute=recompute)


@tf.function(autograph=False, jit_compile=True)
def gradients(layer, inputs):
    """Gradients by the input and by each variable."""
    values = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(tf.sin(layer(inputs, training=True)))
    return tape.gradient(loss, [inputs, *values])


def gradient_difference(depth):
    """Largest relative difference of reversible and plain gradients."""
    reversible, plain = stack(depth, True), stack(depth, False)
    inputs = keras.random.normal((1, LENGTH, 32), seed=0)
    for layer in (reversible, plain):
        layer.build(inputs.shape)
    plain.set_weights(reversible.get_weights())
    pairs = zip(
        gradients(reversible, inputs), gradients(plain, inputs), strict=True
    )
    return max(float(tf.norm(a - b) / tf.norm(b)) for a, b in pairs)


def prefix_difference(depth):
    """Largest relative difference of a prefix's logits."""
    model = keras_reformer.ReformerCausalLM(
        vocabulary_size=258,
        num_layers=depth,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=LENGTH,
        seed=0,
    )
    token_ids = np.random.default_rng(0).integers(258, size=(1, LENGTH))
    whole = model.predict(token_ids, verbose=0)
    worst = 0.0
    for length in (1, 63, 64, 65, 500, LENGTH - 1):
        prefix = model.predict(token_ids[:, :length], verbose=0)
        worst = max(worst, np.abs(prefix - whole[:, :length]).max())
    return worst / np.abs(whole).max()


def main():
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"keras {keras.__version__}, tensorflow {tf.__version__}, float32"
    )
    print(f"{'blocks':>8}{'gradients':>14}{'prefixes':>14}")
    for depth in DEPTHS:
        print(
            f"{depth:>8}{gradient_difference(depth):>14.1e}"
            f"{prefix_difference(depth):>14.1e}"
        )


if __name__ == "__main__":
    main()
