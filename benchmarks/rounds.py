"""How near LSH attention comes to exact attention as rounds grow.

    python benchmarks/rounds.py [--seeds 8] [--length 1024] [--repeats 15]

Compares a causal `LSHSelfAttention` in its default shape with the exact
attention of the same weights, on vectors that lie in clusters. Prints the
mean relative error of its outputs over 1, 2, 4, ... rounds of hashing, for
each way to count duplicates, with the sharp scores that these vectors have
and with soft ones, and saves `docs/rounds.png`. Then times a layer's forward
and backward pass, the ways in turn, step by step.
"""

import argparse
import pathlib
import statistics
import time

import keras
import measuring
import numpy as np
import tensorflow as tf

import keras_reformer
from keras_reformer.ops.attention import hashing

ROUNDS = (1, 2, 4, 8, 16, 32, 64)
MOST = max(ROUNDS)
SCOPES = ("bucket", "chunk")
DUPLICATES = ("count", "discount", "importance")
# Factors of the vectors, and so of the scores.
SCORES = {"sharp": 1.0, "soft": 0.25}
HEADS, KEY_DIM, CHUNK = 2, 64, 64
CLUSTER = 32
NOISE = 0.5
TIMED_ROUNDS, TIMED_LENGTH, TIMED_HEADS = (4, 8), 4096, 8


# === Errors ===


def clustered(length, dim, cluster=CLUSTER, seed=0):
    """Vectors with entries near one in size, `cluster` around each centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(-(-length // cluster), dim))
    vectors = np.repeat(centres, cluster, axis=0)[rng.permutation(length)]
    vectors += NOISE * rng.normal(size=vectors.shape)
    vectors /= np.sqrt(np.mean(vectors**2, axis=-1, keepdims=True))
    return tf.constant(vectors[None], tf.float32)


def make_layer(scope, duplicates, num_heads=HEADS, num_hashes=MOST):
    keras.utils.set_random_seed(0)
    return keras_reformer.LSHSelfAttention(
        num_heads,
        KEY_DIM,
        num_hashes=num_hashes,
        chunk_length=CHUNK,
        causal=True,
        scope=scope,
        exact_below=0,
        duplicates=duplicates,
    )


def make_rotations(scope, length, seeds):
    """Those of each seed, the first rounds of all numbers the same."""
    factors = hashing.resolve_num_buckets(length, CHUNK, scope)
    shape = (HEADS, KEY_DIM, MOST, sum(factors) // 2)
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


def relative_errors(scope, duplicates, inputs, seeds):
    """By rounds and seed: mean distance from exact outputs, over their mean."""
    layer = make_layer(scope, duplicates)
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
    """Errors by kind of scores, scope and way to count duplicates."""
    inputs = clustered(options.length, HEADS * KEY_DIM, options.cluster)
    return {
        (scores, scope, duplicates): relative_errors(
            scope, duplicates, factor * inputs, options.seeds
        )
        for scores, factor in SCORES.items()
        for scope in SCOPES
        for duplicates in DUPLICATES
    }


# === Times ===


def make_step(scope, duplicates, num_hashes):
    """A layer's forward and backward pass, compiled and run once."""
    inputs = clustered(TIMED_LENGTH, TIMED_HEADS * KEY_DIM)
    layer = make_layer(scope, duplicates, TIMED_HEADS, num_hashes)
    layer.build(inputs.shape)

    @tf.function(jit_compile=True, autograph=False)
    def step(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs, training=True) ** 2)
        return tape.gradient(loss, [inputs, *layer.trainable_weights])

    def run():
        step(inputs)[0].numpy()

    run()
    return run


def time_in_turn(scope, num_hashes, repeats):
    """Lists of wall and processor seconds of each way's steps."""
    steps = {way: make_step(scope, way, num_hashes) for way in DUPLICATES}
    seconds = {way: ([], []) for way in DUPLICATES}
    for _ in range(repeats):
        for way, step in steps.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            seconds[way][0].append(time.perf_counter() - wall)
            seconds[way][1].append(time.process_time() - processor)
    return seconds


def time_row(scope, num_hashes, repeats):
    """Medians, and importance's to discounting's: medians of pairs."""
    seconds = time_in_turn(scope, num_hashes, repeats)
    row = [f'"{scope}", {num_hashes} rounds']
    row += [f"{statistics.median(seconds[way][0]):.3f}" for way in DUPLICATES]
    for clock in (0, 1):
        pairs = zip(
            seconds["discount"][clock],
            seconds["importance"][clock],
            strict=True,
        )
        row.append(f"{statistics.median(b / a for a, b in pairs):.3f}")
    return row


def times_table(repeats):
    header = ["scope and rounds", *(f"{way}, s" for way in DUPLICATES)]
    header += ["importance to discount, wall", "processor"]
    rows = [
        time_row(scope, num_hashes, repeats)
        for scope in SCOPES
        for num_hashes in TIMED_ROUNDS
    ]
    return "forward and backward pass of a layer, XLA", header, rows


# === Tables and picture ===


def errors_table(errors, scores):
    found = {key[1:]: x for key, x in errors.items() if key[0] == scores}
    header = ["rounds"]
    header += [f'"{scope}", {duplicates}' for scope, duplicates in found]
    rows = [
        [num_hashes] + [f"{x[index].mean():.2g}" for x in found.values()]
        for index, num_hashes in enumerate(ROUNDS)
    ]
    title = f"mean relative error by scope and `duplicates`, {scores} scores"
    return title, header, rows


def plot(errors, options):
    """A panel for each scope: means over the seeds, and their spread."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(SCORES),
        len(SCOPES),
        figsize=(10, 8),
        sharex=True,
        layout="constrained",
    )
    for scores, row in zip(SCORES, axes, strict=True):
        for scope, axis in zip(SCOPES, row, strict=True):
            for index, way in enumerate(DUPLICATES):
                plot_line(axis, errors[scores, scope, way], way, f"C{index}")
            title = f'scope="{scope}", {scores} scores'
            axis.set_title(title, fontsize="medium")
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(ROUNDS, ROUNDS)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("mean relative error")
    for axis in axes[-1]:
        axis.set_xlabel("rounds of hashing")
    axes[0, 0].legend(loc="lower left", title="duplicates")
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
    add("--cluster", type=int, default=CLUSTER, help="vectors in each; 1: none")
    add("--repeats", type=int, default=15, help="timed steps; 0 times nothing")
    add("--markdown", type=pathlib.Path, help="where to store the tables")
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
    tables = [errors_table(errors, scores) for scores in SCORES]
    if chosen.repeats:
        tables.append(times_table(chosen.repeats))
    measuring.report(tables, chosen.markdown)
    plot(errors, chosen)
    print(f"picture: {chosen.picture}")


if __name__ == "__main__":
    main()
