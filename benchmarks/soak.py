"""Memory and traces over many requests and many training steps.

    python benchmarks/soak.py [--requests 10000] [--cases serve train]

One export is loaded in a process for each of `serve`, `score` and `generate`
and asked with token ids of 1 to 3 rows and any length; another process fits a
tiny language model on a dataset of mixed lengths, in ten epochs. Each tells
its resident size and the number of functions that TensorFlow holds, of all
traces, at every hundredth request or step. Both must become level.

oneDNN, which TensorFlow uses on x86, keeps what it prepared for a shape: sizes
grow with new lengths, more and more slowly. "no oneDNN" shows what is left
without it.

Saves `docs/soak.png` and `docs/soak.csv`.
"""

import argparse
import csv
import json
import os
import pathlib
import sys
import tempfile
import time

import measuring

SIZES = {
    "vocabulary_size": 30,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 256,
    "chunk_length": 16,
    "seed": 0,
}
MOST_ROWS = 3
# Of a training window, and of what `generate` adds.
WINDOW, NEW_TOKENS = 64, 16
EPOCHS = 10
WITHOUT = ", no oneDNN"
EVERY = 100  # requests between two measurements
COLUMNS = ("case", "requests", "resident_mib", "functions", "seconds")


# === Workers ===


def work(case):
    """What a worker does: prints its answer, and its progress to stderr."""
    if case["case"].endswith(WITHOUT):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    measuring.answer(WORK[kind_of(case["case"])](case))


def write_export(case):
    import keras_reformer
    from keras_reformer.export import export_saved_model

    model = keras_reformer.ReformerCausalLM(**SIZES)
    return {"path": export_saved_model(model, case["folder"])}


def ask(case):
    """Requests to one endpoint of a loaded export."""
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(case["path"])
    name = kind_of(case["case"])
    endpoint = getattr(loaded, name)
    draws = np.random.default_rng(0)
    log = Log(case)
    for _ in range(case["requests"]):
        answer = endpoint(**request(name, draws))
        for x in answer.values():
            x.numpy()
        log.count()
    return {"log": log.rows}


def kind_of(case):
    return case.removesuffix(WITHOUT)


def request(name, draws):
    """Token ids of a random shape, and what else the endpoint takes."""
    import numpy as np

    longest = SIZES["max_sequence_length"]
    longest -= NEW_TOKENS if name == "generate" else 0
    rows, length = draws.integers(1, MOST_ROWS + 1), draws.integers(longest) + 1
    size = SIZES["vocabulary_size"]
    token_ids = draws.integers(size, size=(rows, length), dtype="int32")
    if name == "serve":
        return {"token_ids": token_ids}
    lengths = draws.integers(1, length + 1, size=rows, dtype="int32")
    found = {"token_ids": token_ids, "lengths": lengths}
    if name == "generate":
        found |= {
            "max_length": lengths + np.int32(NEW_TOKENS),
            "seed": draws.integers(2**31, size=rows, dtype="int32"),
            "temperature": np.ones(rows, "float32"),
        }
    return found


def train(case):
    """Steps of `fit` on a dataset of mixed lengths."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_reformer

    def batches():
        draws = np.random.default_rng(0)
        size = SIZES["vocabulary_size"]
        while True:
            shape = MOST_ROWS, draws.integers(2, WINDOW + 1)
            yield draws.integers(size, size=shape, dtype="int32")

    spec = tf.TensorSpec((MOST_ROWS, None), tf.int32)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    model = keras_reformer.ReformerCausalLM(**SIZES, dropout=0.1)
    model.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"])
    log = Log(case)
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: log.count()
    )
    model.fit(
        dataset,
        epochs=EPOCHS,
        steps_per_epoch=case["requests"] // EPOCHS,
        callbacks=[counting],
        verbose=0,
    )
    return {"log": log.rows}


WORK = {
    "export": write_export,
    "serve": ask,
    "score": ask,
    "generate": ask,
    "train": train,
}


class Log:
    """Rows of what a process holds, as its requests are counted."""

    def __init__(self, case):
        self.case, self.rows, self.done = case, [], 0
        self.start = time.perf_counter()

    def count(self):
        self.done += 1
        if self.done % EVERY and self.done > 1:
            return
        seconds = time.perf_counter() - self.start
        held = measuring.resident_memory(), num_functions()
        self.rows.append((self.case["case"], self.done, *held, seconds))
        if self.done % (10 * EVERY) == 0:
            print(
                f"{self.case['case']:<18}{self.done:>7,} {seconds:6.0f} s, "
                f"{held[0]:.1f} MiB, {held[1]} functions",
                file=sys.stderr,
                flush=True,
            )


def num_functions():
    """Functions in TensorFlow's registry, those of all traces."""
    from tensorflow.python.eager import context

    return len(context.context().list_function_names())


# === Driver ===


def measure_all(options):
    """Rows of all cases, as the workers tell them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        case = {"case": "export", "folder": folder}
        path = measuring.run_worker(__file__, case)["path"]
        for name in options.cases:
            case = {"case": name, "path": path, "requests": options.requests}
            found = measuring.run_worker(__file__, case, show_progress=True)
            rows += [
                dict(zip(COLUMNS, row, strict=True)) for row in found["log"]
            ]
            save(rows, options.csv)
    return rows


def save(rows, path):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    **row,
                    "resident_mib": f"{row['resident_mib']:.2f}",
                    "seconds": f"{row['seconds']:.1f}",
                }
            )


def load(path):
    numbers = COLUMNS[1:]
    with open(path, newline="") as file:
        return [
            {**row, **{name: float(row[name]) for name in numbers}}
            for row in csv.DictReader(file)
        ]


def by_case(rows):
    found = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return found


def slope(rows):
    """MiB that a further thousand requests take, by least squares."""
    import numpy as np

    requests = [row["requests"] / 1000 for row in rows]
    return np.polyfit(requests, [row["resident_mib"] for row in rows], 1)[0]


def tables(rows):
    """What each process holds in its course."""
    header = (
        "case",
        "requests or steps",
        "a second",
        "MiB after a fifth",
        "at the end",
        "MiB per 1,000, first half",
        "second half",
        "functions after the first",
        "at the end",
    )
    lines = []
    for name, mine in by_case(rows).items():
        last, half = mine[-1], len(mine) // 2
        fifth = mine[len(mine) // 5]
        lines.append(
            (
                name,
                f"{last['requests']:,.0f}",
                f"{last['requests'] / last['seconds']:.0f}",
                f"{fifth['resident_mib']:.1f}",
                f"{last['resident_mib']:.1f}",
                f"{slope(mine[:half]):+.2f}",
                f"{slope(mine[half:]):+.2f}",
                f"{mine[0]['functions']:.0f}",
                f"{last['functions']:.0f}",
            )
        )
    yield "Many requests, many steps", header, lines


def plot(rows, picture):
    """Resident size against requests."""
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
    kinds = [kind for kind in WORK if kind != "export"]
    for name, mine in by_case(rows).items():
        panel.plot(
            [row["requests"] for row in mine],
            [row["resident_mib"] for row in mine],
            color=f"C{kinds.index(kind_of(name))}",
            linestyle="dashed" if name.endswith(WITHOUT) else "solid",
            label=name,
        )
    panel.set(
        xlabel="requests, or training steps", ylabel="resident size (MiB)"
    )
    measuring.start_at_zero(panel)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", loc="lower right")
    figure.savefig(picture, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    kinds = [kind for kind in WORK if kind != "export"]
    names = [*kinds, *(kind + WITHOUT for kind in kinds)]
    add("--requests", type=int, default=10_000)
    add("--cases", nargs="+", choices=names, default=names)
    add("--markdown", type=pathlib.Path, help="where to store the table")
    add("--csv", type=pathlib.Path, default=measuring.DOCS / "soak.csv")
    add("--picture", type=pathlib.Path, default=measuring.DOCS / "soak.png")
    add("--load", type=pathlib.Path, nargs="+", help="draw stored CSV files")
    add("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    print(measuring.describe_machine(), flush=True)
    if options.load:
        rows = [row for path in options.load for row in load(path)]
        save(rows, options.csv)
    else:
        rows = measure_all(options)
    measuring.report(list(tables(rows)), options.markdown)
    plot(rows, options.picture)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
