"""What this machine can do, and how fast our attention layer could be.

    python benchmarks/run.py limits [--lengths 4096 65536] [--measured FILE]

The rates of one large float32 product, of many small ones in the shapes and
layouts of windowed attention, and of copying, the fastest of all tries; and the
time of a layer's products at those rates. `--measured` takes what `run.py
attention --json` stored and says how far ours is from that bound.
"""

import pathlib

import contenders
import language_model
import measuring
import reporting
import steps
from contenders import CHUNK, HASHES, HEAD_SIZE, HEADS, WIDTH

LARGE = "one 2048x2048x2048"
COPY = "copy"
# Rows, inner size, columns of a product; then which operand is transposed.
# Scores and their gradients are nt, contexts nn and, with keys by rows in the
# backward pass, the gradients by keys and values too; that by queries is tn.
SHAPES = {LARGE: (2048, 2048, 2048, "nn")}
for keys in (CHUNK, 2 * CHUNK):
    name = f"64x{keys}x64"
    SHAPES[f"many {name} nt"] = (CHUNK, HEAD_SIZE, keys, "nt")
    SHAPES[f"many {name} nn"] = (CHUNK, keys, HEAD_SIZE, "nn")
    SHAPES[f"many {name} tn"] = (keys, CHUNK, HEAD_SIZE, "tn")
SMALL = {
    layout: f"many 64x{2 * CHUNK}x64 {layout}" for layout in ("nt", "nn", "tn")
}
# How many products of each layout a pass has; backward repeats the scores.
PRODUCTS = {
    "forward": {"nt": 1, "nn": 1},
    "forward+backward": {"nt": 3, "nn": 3, "tn": 1},
}
PARTS = ("projections", "hashing", "small products")
MANY = 512
COPIED = 2**28
KEYS = ("name",)
DEFAULTS = {"repeats": 20, "rounds": 2}
OPTIONS = {
    "names": ([*SHAPES, COPY], "", [LARGE, COPY]),
    "lengths": ([1024, 4096, 16384, 65536, 131072], "of the bounds", [1024]),
    "measured": (pathlib.Path, "raw results of attention"),
}
AXES = {"name": "names"}


def work(case):
    """The fastest rate, in 10^9 a second."""
    make = copy_step if case["name"] == COPY else product_step
    step, amount = make(case["name"])
    step()
    seconds = measuring.time_steps(step, case["repeats"])
    return {"rate": amount / min(seconds) / 1e9}


def product_step(name):
    """A step that multiplies, and its floating-point operations."""
    import tensorflow as tf

    rows, inner, columns, layout = SHAPES[name]
    count = 1 if name == LARGE else MANY
    left = (inner, rows) if layout[0] == "t" else (rows, inner)
    right = (columns, inner) if layout[1] == "t" else (inner, columns)
    inputs = (
        tf.random.stateless_normal((count, *left), (0, 1)),
        tf.random.stateless_normal((count, *right), (0, 2)),
    )

    def multiply(left, right):
        return tf.matmul(left, right, layout[0] == "t", layout[1] == "t")

    operations = 2 * count * rows * inner * columns
    return steps.compiled(multiply, inputs, True), operations


def copy_step(name):
    """A step that copies on all cores, and the bytes it reads and writes."""
    import tensorflow as tf

    source = tf.random.stateless_normal((COPIED // 4,), (0, 1))
    # XLA gives an untouched input back as it is.
    return steps.compiled(lambda x: -x, [source], True), 2 * COPIED


def best_rates(records):
    """The best of all rounds, by name."""
    found = measuring.split(records, ["name"])
    return {
        name: max(record["rate"] for record in members)
        for (name,), members in found.items()
    }


def unit(name):
    return "GB/s" if name == COPY else "GFLOP/s"


def bound(length, mode, rates):
    """Seconds of a layer's parts at a length, batch 1."""
    passes, gathers = (1, 3) if mode == "forward" else (3, 8)
    rows = length * HEADS * HASHES
    columns = language_model.rotation_columns(length)
    small = 2 * rows * 2 * CHUNK * HEAD_SIZE
    # Queries and keys are one matrix; values and outputs have one each.
    projections = 3 * passes * 2 * length * WIDTH * HEADS * HEAD_SIZE
    # Each round gathers queries' and keys' vectors, values and contexts, and
    # backward these and the gradients by the first two.
    copied = gathers * 2 * 4 * rows * HEAD_SIZE
    return {
        "projections": projections / rates[LARGE],
        "hashing": 2 * rows * HEAD_SIZE * columns / rates[LARGE],
        "small products": sum(
            count * small / rates[SMALL[layout]]
            for layout, count in PRODUCTS[mode].items()
        ),
        COPY: copied / rates[COPY],
    }


def tables(records, options):
    """The rates, then the bounds for each mode."""
    rates = best_rates(records)
    header = "what", "rate", "unit"
    rows = [(name, f"{rate:.1f}", unit(name)) for name, rate in rates.items()]
    yield "rates", header, rows
    if set(rates) < {*SHAPES, COPY}:
        return
    rates = {name: rate * 1e9 for name, rate in rates.items()}
    measured = load_measured(options.measured)
    header = ("length", *PARTS, "bound, s", "copies, s", "ours, s")
    for mode in contenders.MODES:
        rows = []
        for length in options.lengths:
            *products, copies = bound(length, mode, rates).values()
            total, ours = sum(products), measured.get((length, mode))
            seconds = *products, total, copies, ours
            cells = ["" if x is None else f"{x:.4f}" for x in seconds]
            rows.append((length, *cells, reporting.ratio(ours, total)))
        yield f"bound, {mode}", (*header, "ours / bound"), rows


def load_measured(path):
    """Seconds of our layer by length and mode, batch 1."""
    wanted = {"contender": contenders.OURS, "allocator": "generous", "batch": 1}
    records = measuring.load_json([path] if path else [])
    chosen = [each for each in records if wanted.items() <= each.items()]
    medians = measuring.medians(chosen, ("length", "mode"))
    return {(each["length"], each["mode"]): each["seconds"] for each in medians}


def plot(records, options):
    """A bar for each rate."""
    rates = best_rates(records)
    return reporting.draw_bars(
        {f"{name}, {unit(name)}": rate for name, rate in rates.items()},
        "10^9 a second",
        "Rates of this machine, float32",
        ["C1" if name == COPY else "C0" for name in rates],
        "%.1f",
    )
