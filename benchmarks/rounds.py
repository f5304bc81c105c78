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
QUICK = {
    "hashes": [1, 2],
    "seeds": 1,
    "length": 128,
    "timed_length": 64,
    "timed_rounds": [1],
}
OPTIONS = {
    "parts": ["errors", "times"],
    "hashes": ([1, 2, 4, 8, 16, 32, 64], "rounds whose errors are shown"),
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
            hashes=[options.hashes],
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


def make_layer(scope, duplicates, num_hashes, num_heads=HEADS):
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


def make_rotations(scope, length, most, seeds):
    """Those of each seed, the first rounds of all numbers the same."""
    factors = buckets.resolve(length, scope)
    factors = factors if isinstance(factors, list) else [factors]
    shape = (HEADS, KEY_DIM, most, sum(factors) // 2)
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
    scope, most = case["scope"], max(case["hashes"])
    rotations = make_rotations(scope, case["length"], most, case["seeds"])
    layer = make_layer(scope, case["duplicates"], most)
    layer.build(inputs.shape)
    layer.exact_below = case["length"]
    exact = layer(inputs)
    layer.exact_below = 0
    mean_length = tf.reduce_mean(tf.norm(exact, axis=-1))
    errors = {}
    for num_hashes in case["hashes"]:
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
    layer = make_layer(case["scope"], duplicates, case["rounds"], TIMED_HEADS)
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


def errors_of(records, scores):
    """By scope and way: of each number of rounds the errors of all seeds."""
    return {
        (record["scope"], record["duplicates"]): {
            number: record[str(number)] for number in record["hashes"]
        }
        for record in records
        if record.get("scores") == scores
    }


def tables(records, options):
    for scores in SCORES:
        found = errors_of(records, scores)
        rows = {}
        for errors in found.values():
            for number, values in errors.items():
                mean = f"{statistics.mean(values):.2g}"
                rows.setdefault(number, [number]).append(mean)
        if found:
            title = "mean relative error by scope and `duplicates`, "
            header = ["rounds", *(f'"{scope}", {way}' for scope, way in found)]
            yield title + f"{scores} scores", header, list(rows.values())
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
    shown = [record for record in records if record["part"] == "errors"]
    if not shown:
        return None
    figure, panels = reporting.make_panels(len(SCORES), len(SCOPES))
    places = itertools.product(SCORES, SCOPES)
    for (scores, scope), panel in zip(places, panels.flat, strict=True):
        lines = {}
        for (where, way), errors in errors_of(shown, scores).items():
            if where == scope:
                lowest = map(min, errors.values())
                highest = map(max, errors.values())
                color = f"C{DUPLICATES.index(way)}"
                spread = list(errors), list(lowest), list(highest)
                panel.fill_between(*spread, color=color, alpha=0.2)
                means = map(statistics.mean, errors.values())
                lines[way] = list(zip(errors, means, strict=True))
        reporting.draw_lines(
            panel,
            lines,
            {way: {"color": f"C{i}"} for i, way in enumerate(DUPLICATES)},
            "xy",
            title=f'scope="{scope}", {scores} scores',
            xlabel="rounds of hashing",
            ylabel="mean relative error",
        )
        panel.set_xticks(shown[0]["hashes"], shown[0]["hashes"])
    panels[0, 0].legend(loc="lower left", title="duplicates")
    figure.suptitle(
        "LSH attention beside exact attention: "
        f"{shown[0]['length']:,} tokens, {shown[0]['seeds']} draws of rotations"
    )
    return figure
