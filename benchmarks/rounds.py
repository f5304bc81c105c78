"""How near LSH attention comes to exact attention as rounds grow.

    python benchmarks/run.py rounds [--seeds 8] [--length 1024] [--repeats 15]

Compares a causal `LSHSelfAttention` in its default shape with the exact
attention of the same weights, on vectors that lie in clusters. Prints the
mean relative error of its outputs over 1, 2, 4, ... rounds of hashing, for
each way to count duplicates, with the sharp scores that these vectors have
and with soft ones. Then times a layer's forward and backward pass, the ways
in turn, step by step; `--parts errors` times nothing.
"""

import itertools
import statistics
import time

import buckets
import keras
import measuring
import numpy as np
import reporting
import steps
import tensorflow as tf

import keras_reformer

ROUNDS = (1, 2, 4, 8, 16, 32, 64)
MOST = max(ROUNDS)
SCOPES = ("bucket", "chunk")
DUPLICATES = ("count", "discount", "importance")
# Factors of the vectors, and so of the scores.
SCORES = {"sharp": 1.0, "soft": 0.25}
HEADS, KEY_DIM, CHUNK = 2, 64, 64
CLUSTER = 32
NOISE = 0.5
TIMED_HEADS = 8
KEYS = ("part", "scores", "scope", "duplicates", "rounds")
DEFAULTS = {"repeats": 15}
QUICK = {"length": 128, "seeds": 1, "timed_length": 64, "timed_rounds": [1]}


OPTIONS = {
    "parts": ["errors", "times"],
    "seeds": (8, "draws of rotations"),
    "length": 1024,
    "cluster": (CLUSTER, "vectors in each; 1: none"),
    "timed_length": 4096,
    "timed_rounds": [4, 8],
}


def cases(options):
    if "errors" in options.parts:
        yield from measuring.grid(
            part=["errors"],
            scores=SCORES,
            scope=SCOPES,
            duplicates=DUPLICATES,
            length=[options.length],
            cluster=[options.cluster],
            seeds=[options.seeds],
        )
    if "times" in options.parts:
        yield from measuring.grid(
            part=["times"],
            scope=SCOPES,
            rounds=options.timed_rounds,
            length=[options.timed_length],
        )


def work(case):
    return relative_errors(case) if case["part"] == "errors" else times(case)


# === Errors ===


def clustered(length, dim, cluster):
    """Vectors with entries near one in size, `cluster` around each centre."""
    rng = np.random.default_rng(0)
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
    factors = buckets.resolve(length, scope)
    factors = factors if isinstance(factors, list) else [factors]
    shape = (HEADS, KEY_DIM, MOST, sum(factors) // 2)
    return [
        np.random.default_rng(seed).normal(size=shape).astype("float32")
        for seed in range(seeds)
    ]


def relative_errors(case):
    """By rounds: of each seed the mean distance from exact outputs.

    It is divided by the mean length of the latter.
    """
    inputs = clustered(case["length"], HEADS * KEY_DIM, case["cluster"])
    inputs *= SCORES[case["scores"]]
    rotations = make_rotations(case["scope"], case["length"], case["seeds"])
    layer = make_layer(case["scope"], case["duplicates"])
    layer.build(inputs.shape)
    layer.exact_below = case["length"]
    exact = layer(inputs)
    layer.exact_below = 0
    mean_length = tf.reduce_mean(tf.norm(exact, axis=-1))
    errors = {}
    for num_hashes in ROUNDS:
        layer.num_hashes = num_hashes
        attend = tf.function(layer, autograph=False, jit_compile=True)
        distances = [
            attend(inputs, rotations=each) - exact for each in rotations
        ]
        means = [tf.reduce_mean(tf.norm(x, axis=-1)) for x in distances]
        errors[str(num_hashes)] = [float(x / mean_length) for x in means]
    return errors


# === Times ===


def make_step(case, duplicates):
    """A layer's forward and backward pass, compiled and run once."""
    layer = make_layer(case["scope"], duplicates, TIMED_HEADS, case["rounds"])
    inputs = clustered(case["length"], TIMED_HEADS * KEY_DIM, CLUSTER)
    layer.build(inputs.shape)
    step = steps.layer(layer, inputs, True)
    step()
    return step


def times(case):
    """Wall seconds of each way's steps, and ratios of neighbouring ones."""
    ways = {way: make_step(case, way) for way in DUPLICATES}
    wall, processor = ({way: [] for way in DUPLICATES} for _ in range(2))
    for _ in range(case["repeats"]):
        for way, step in ways.items():
            began = time.perf_counter(), time.process_time()
            step()
            wall[way].append(time.perf_counter() - began[0])
            processor[way].append(time.process_time() - began[1])

    def pairs(seconds):
        both = zip(seconds["importance"], seconds["discount"], strict=True)
        return [new / old for new, old in both]

    return {**wall, "wall": pairs(wall), "processor": pairs(processor)}


# === Tables and picture ===


def means(records, scores):
    """By scope and way: of each number of rounds the mean over the seeds."""
    return {
        (record["scope"], record["duplicates"]): [
            statistics.mean(record[str(each)]) for each in ROUNDS
        ]
        for record in records
        if record.get("scores") == scores
    }


def tables(records, options):
    for scores in SCORES:
        found = means(records, scores)
        if found:
            yield (
                "mean relative error by scope and `duplicates`, "
                f"{scores} scores",
                ["rounds", *(f'"{scope}", {way}' for scope, way in found)],
                [
                    [rounds, *(f"{x:.2g}" for x in row)]
                    for rounds, *row in zip(
                        ROUNDS, *found.values(), strict=True
                    )
                ],
            )
    timed = [record for record in records if record["part"] == "times"]
    rows = [
        [
            f'"{scope}", {rounds} rounds',
            *(f"{x:.3f}" for x in summary.values()),
        ]
        for (scope, rounds), summary in measuring.group(
            timed, ("scope", "rounds")
        ).items()
    ]
    if rows:
        header = ["scope and rounds", *(f"{way}, s" for way in DUPLICATES)]
        header += ["importance to discount, wall", "processor"]
        yield "forward and backward pass of a layer, XLA", header, rows


def plot(records, options):
    """A panel for each scope: means over the seeds, and their spread."""
    figure, panels = reporting.make_panels(len(SCORES), len(SCOPES))
    shown = [record for record in records if record["part"] == "errors"]
    places = itertools.product(SCORES, SCOPES)
    for (scores, scope), panel in zip(places, panels.flat, strict=True):
        mine = {
            record["duplicates"]: [record[str(each)] for each in ROUNDS]
            for record in shown
            if (record["scores"], record["scope"]) == (scores, scope)
        }
        for way, errors in mine.items():
            lowest, highest = map(min, errors), map(max, errors)
            color = f"C{DUPLICATES.index(way)}"
            edges = list(lowest), list(highest)
            panel.fill_between(ROUNDS, *edges, color=color, alpha=0.2)
        lines = {
            way: [
                (n, statistics.mean(x))
                for n, x in zip(ROUNDS, errors, strict=True)
            ]
            for way, errors in mine.items()
        }
        labels = {
            "xlabel": "rounds of hashing",
            "ylabel": "mean relative error",
        }
        title = f'scope="{scope}", {scores} scores'
        reporting.draw_lines(
            panel, lines, logarithmic="xy", title=title, **labels
        )
        panel.set_xticks(ROUNDS, ROUNDS)
    panels[0, 0].legend(loc="lower left", title="duplicates")
    if shown:
        length, seeds = shown[0]["length"], shown[0]["seeds"]
        figure.suptitle(
            "LSH attention beside exact attention: "
            f"{length:,} tokens, {seeds} draws of rotations"
        )
    return figure
