"""How near LSH attention comes to exact attention as rounds grow.

    python benchmarks/run.py rounds [--seeds 8] [--length 1024] [--repeats 15]

Mean relative errors beside the exact attention of the same weights, on vectors
that lie in clusters, for each way to count duplicates, with sharp and with soft
scores. Then times a layer's forward and backward pass, the ways in turn, step
by step; `--parts errors` times nothing.
"""

import statistics
import time

import contenders
import keras
import language_model
import measuring
import numpy as np
import reporting
import steps
import tensorflow as tf
from contenders import HEAD_SIZE

SCOPES = ("bucket", "chunk")
WAYS = ("count", "discount", "importance")
# Factors of the vectors, and so of the scores.
SCORES = {"sharp": 1.0, "soft": 0.25}
HEADS, TIMED_HEADS = 2, 8
NOISE = 0.5
KEYS = ("part", "scores", "scope", "rounds")
DEFAULTS = {"repeats": 15}
OPTIONS = {
    "parts": ["errors", "times"],
    "hashes": ([1, 2, 4, 8, 16, 32, 64], "rounds of the errors", [1, 2]),
    "seeds": (8, "draws of rotations", 1),
    "length": (1024, "of the errors", 128),
    "cluster": (32, "vectors in each; 1: none"),
    "timed_length": (4096, "", 64),
    "timed_rounds": ([4, 8], "", [1]),
}


def cases(options):
    errors = ("hashes", "length", "cluster", "seeds")
    axes = {
        "errors": {
            "scores": SCORES,
            "scope": SCOPES,
            **{name: [getattr(options, name)] for name in errors},
        },
        "times": {
            "scope": SCOPES,
            "rounds": options.timed_rounds,
            "length": [options.timed_length],
        },
    }
    for part in options.parts:
        yield from measuring.grid(part=[part], **axes[part])


def work(case):
    return relative_errors(case) if case["part"] == "errors" else times(case)


def clustered(length, dim, cluster=32):
    """Vectors with entries near one in size, `cluster` around each centre."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(-(-length // cluster), dim))
    vectors = np.repeat(centres, cluster, axis=0)[rng.permutation(length)]
    vectors += NOISE * rng.normal(size=vectors.shape)
    vectors /= np.sqrt(np.mean(vectors**2, axis=-1, keepdims=True))
    return tf.constant(vectors[None], tf.float32)


def make_layer(inputs, heads, num_hashes, **options):
    keras.utils.set_random_seed(0)
    options |= {"num_hashes": num_hashes, "exact_below": 0, "seed": None}
    return contenders.make_layer(inputs.shape, heads, **options)


def make_rotations(scope, length, most, seeds):
    """Those of each seed, the first rounds of all numbers the same."""
    columns = language_model.rotation_columns(length, scope)
    shape = (HEADS, HEAD_SIZE, most, columns)
    return [
        np.random.default_rng(seed).normal(size=shape).astype("float32")
        for seed in range(seeds)
    ]


def relative_errors(case):
    """By way and rounds, the mean distance from exact outputs of each seed.

    It is divided by the mean length of the latter.
    """
    inputs = clustered(case["length"], HEADS * HEAD_SIZE, case["cluster"])
    inputs *= SCORES[case["scores"]]
    scope, most = case["scope"], max(case["hashes"])
    rotations = make_rotations(scope, case["length"], most, case["seeds"])

    def mean_length(x):
        return float(tf.reduce_mean(tf.norm(x, axis=-1)))

    errors = {}
    for way in WAYS:
        layer = make_layer(inputs, HEADS, most, scope=scope, duplicates=way)
        layer.exact_below = case["length"]
        exact = layer(inputs)
        layer.exact_below = 0
        for num_hashes in case["hashes"]:
            layer.num_hashes = num_hashes
            attend = tf.function(layer, autograph=False, jit_compile=True)
            errors[f"{way} {num_hashes}"] = [
                mean_length(attend(inputs, rotations=each) - exact)
                / mean_length(exact)
                for each in rotations
            ]
    return errors


def make_step(case, way):
    """A layer's forward and backward pass, compiled and run once."""
    inputs = clustered(case["length"], TIMED_HEADS * HEAD_SIZE)
    options = {"scope": case["scope"], "duplicates": way}
    layer = make_layer(inputs, TIMED_HEADS, case["rounds"], **options)
    step = steps.layer(layer, inputs, True)
    step()
    return step


def times(case):
    """Wall seconds of each way's steps, and ratios of neighbouring ones."""
    ways = {way: make_step(case, way) for way in WAYS}
    wall, processor = ({way: [] for way in WAYS} for _ in range(2))
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


def errors_of(record, way):
    """For each number of rounds, the errors of all seeds."""
    return [record[f"{way} {number}"] for number in record["hashes"]]


def tables(records, options):
    errors = [record for record in records if record["part"] == "errors"]
    form = "mean relative error by scope and `duplicates`, {scores} scores"
    for title, members in reporting.titled(errors, form):
        columns = {
            f'"{each["scope"]}", {way}': errors_of(each, way)
            for each in members
            for way in WAYS
        }
        rows = [
            [number, *(f"{statistics.mean(each):.2g}" for each in errors)]
            for number, *errors in zip(
                members[0]["hashes"], *columns.values(), strict=True
            )
        ]
        yield title, ["rounds", *columns], rows
    columns = {"scope and rounds": '"{scope}", {rounds} rounds'}
    columns |= {f"{way}, s": f"{{{way}:.3f}}" for way in WAYS}
    columns["importance to discount, wall"] = "{wall:.3f}"
    columns["processor"] = "{processor:.3f}"
    timed = [record for record in records if record["part"] == "times"]
    medians = measuring.medians(timed, ("scope", "rounds"))
    if medians:
        title = "forward and backward pass of a layer, XLA"
        yield title, *reporting.rows(medians, columns)


def plot(records, options):
    """A panel for each scope: means over the seeds, and their spread."""
    shown = [record for record in records if record["part"] == "errors"]
    if not shown:
        return None
    figure, panels = reporting.make_panels(len(SCORES), len(SCOPES))
    labels = {"xlabel": "rounds of hashing", "ylabel": "mean relative error"}
    styles = reporting.colors(WAYS)
    found = reporting.titled(shown, 'scope="{scope}", {scores} scores')
    for (title, (record, *_)), panel in zip(found, panels.flat, strict=False):
        numbers, lines = record["hashes"], {}
        for way in WAYS:
            errors = errors_of(record, way)
            spread = (list(map(f, errors)) for f in (min, max))
            panel.fill_between(numbers, *spread, **styles[way], alpha=0.2)
            means = map(statistics.mean, errors)
            lines[way] = list(zip(numbers, means, strict=True))
        labels["title"] = title
        reporting.draw_lines(panel, lines, styles, "xy", **labels)
        panel.set_xticks(numbers, numbers)
    panels[0, 0].legend(loc="lower left", title="duplicates")
    figure.suptitle(
        "LSH attention beside exact attention: "
        f"{shown[0]['length']:,} tokens, {shown[0]['seeds']} draws of rotations"
    )
    return figure
