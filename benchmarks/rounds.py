"""How near LSH attention comes to exact attention as rounds grow.

    python benchmarks/rounds.py [--seeds 8] [--length 1024]

Compares a causal `LSHSelfAttention` in its default shape with the exact
attention of the same weights, on vectors that lie in clusters. Prints the
mean relative error of its outputs over 1, 2, 4, ... rounds of hashing, with
`discount_duplicates` and without it, and saves `docs/rounds.png`.
"""

import argparse
import pathlib

import keras
import measuring
import numpy as np
import tensorflow as tf

import keras_reformer
from keras_reformer.ops import hashing

ROUNDS = (1, 2, 4, 8, 16, 32, 64)
SCOPES = ("bucket", "chunk")
LABELS = {
    True: "discount_duplicates=True",
    False: "discount_duplicates=False",
}
HEADS, KEY_DIM, CHUNK = 2, 64, 64
CLUSTER = 32
NOISE = 0.5


# === Measurements ===


def clustered(length, dim, seed=0):
    """Vectors with entries near one in size, `CLUSTER` around each centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(-(-length // CLUSTER), dim))
    vectors = np.repeat(centres, CLUSTER, axis=0)[rng.permutation(length)]
    vectors += NOISE * rng.normal(size=vectors.shape)
    vectors /= np.sqrt(np.mean(vectors**2, axis=-1, keepdims=True))
    return tf.constant(vectors[None], tf.float32)


def make_layer(scope, discount):
    keras.utils.set_random_seed(0)
    return keras_reformer.LSHSelfAttention(
        HEADS,
        KEY_DIM,
        num_hashes=max(ROUNDS),
        chunk_length=CHUNK,
        causal=True,
        scope=scope,
        exact_below=0,
        discount_duplicates=discount,
    )


def make_rotations(scope, length, seeds):
    """Those of each seed, the first rounds of all numbers the same."""
    factors = hashing.resolve_num_buckets(length, CHUNK, scope)
    shape = (HEADS, KEY_DIM, max(ROUNDS), sum(factors) // 2)
    return [
        np.random.default_rng(seed).normal(size=shape).astype("float32")
        for seed in range(seeds)
    ]


def compiled(layer):
    """The layer as it is set now."""
    return tf.function(
        lambda inputs, rotations: layer(inputs, rotations=rotations),
        autograph=False,
        jit_compile=True,
    )


def relative_errors(scope, discount, inputs, seeds):
    """By rounds and seed: mean distance from exact outputs, over their mean."""
    layer = make_layer(scope, discount)
    rotations = make_rotations(scope, inputs.shape[1], seeds)
    layer.build(inputs.shape)
    layer.exact_below = inputs.shape[1]
    exact = layer(inputs)
    layer.exact_below = 0
    mean_length = tf.reduce_mean(tf.norm(exact, axis=-1))
    errors = np.zeros((len(ROUNDS), seeds))
    for index, num_hashes in enumerate(ROUNDS):
        layer.num_hashes = num_hashes
        attend = compiled(layer)
        for seed in range(seeds):
            distance = attend(inputs, rotations[seed]) - exact
            mean = tf.reduce_mean(tf.norm(distance, axis=-1))
            errors[index, seed] = mean / mean_length
    return errors


def measure(options):
    """Errors by scope and setting."""
    inputs = clustered(options.length, HEADS * KEY_DIM)
    return {
        (scope, discount): relative_errors(
            scope, discount, inputs, options.seeds
        )
        for scope in SCOPES
        for discount in LABELS
    }


# === Table and picture ===


def table(errors):
    header = ["rounds"]
    header += [f'"{scope}", {discount}' for scope, discount in errors]
    rows = [
        [num_hashes]
        + [f"{found[index].mean():.2g}" for found in errors.values()]
        for index, num_hashes in enumerate(ROUNDS)
    ]
    return (
        "mean relative error by scope and `discount_duplicates`",
        header,
        rows,
    )


def plot(errors, options):
    """A panel for each scope: means over the seeds, and their spread."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(SCOPES), figsize=(10, 4.4), sharey=True, layout="constrained"
    )
    for scope, axis in zip(SCOPES, axes, strict=True):
        for index, (discount, label) in enumerate(LABELS.items()):
            plot_line(axis, errors[scope, discount], label, f"C{index}")
        axis.set_title(f'scope="{scope}"', fontsize="medium")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(ROUNDS, ROUNDS)
        axis.set_xlabel("rounds of hashing")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean relative error")
    axes[0].legend(loc="lower left")
    figure.suptitle(
        "LSH attention beside exact attention: "
        f"{options.length:,} tokens, {options.seeds} draws of rotations"
    )
    figure.savefig(options.picture, dpi=120)


def plot_line(axis, errors, label, color):
    axis.plot(ROUNDS, errors.mean(axis=1), "o-", label=label, color=color)
    lowest, highest = errors.min(axis=1), errors.max(axis=1)
    axis.fill_between(ROUNDS, lowest, highest, color=color, alpha=0.2)


# === Command ===


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=8, help="draws of rotations")
    add("--length", type=int, default=1024)
    add("--markdown", type=pathlib.Path, help="where to store the table")
    add(
        "--picture",
        type=pathlib.Path,
        default=measuring.DOCS / "rounds.png",
    )
    return parser.parse_args()


def main():
    chosen = options()
    print(measuring.describe_machine(), flush=True)
    errors = measure(chosen)
    measuring.report([table(errors)], chosen.markdown)
    plot(errors, chosen)
    print(f"picture: {chosen.picture}")


if __name__ == "__main__":
    main()
