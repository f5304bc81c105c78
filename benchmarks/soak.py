"""Memory and traces over many requests and many training steps.

    python benchmarks/run.py soak [--requests 10000] [--kinds serve train]

Each process tells its resident size and the number of functions that TensorFlow
holds, of all traces, a hundred times in its course. Both must become level.

oneDNN, which TensorFlow uses on x86, keeps what it prepared for a shape; "no
oneDNN" is without it. `--load docs/soak.json` draws what is in the documents.
"""

import os
import statistics
import tempfile
import time

import measuring
import reporting

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
MEASUREMENTS = 100
ENDPOINTS = ("serve", "score", "generate")
NAMES = [kind + end for end in ("", WITHOUT) for kind in (*ENDPOINTS, "train")]
KEYS = ("kind", "requests")
DEFAULTS = {"allocators": ["default"]}
OPTIONS = {"requests": (10_000, "", 200), "kinds": NAMES}


def cases(options):
    if options.requests < 2 * EPOCHS:
        raise SystemExit(
            f"--requests: at least {2 * EPOCHS}. Received: {options.requests}"
        )
    return measuring.grid(kind=options.kinds, requests=[options.requests])


def work(case):
    """What the process held in its course."""
    if case["kind"].endswith(WITHOUT):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    log = Log(case["kind"], max(1, case["requests"] // MEASUREMENTS))
    name = without(case["kind"])
    if name == "train":
        train(case["requests"], log)
    else:
        ask(name, case["requests"], log)
    _, resident, functions, _ = log.rows[-1]
    return {"log": log.rows, "resident": resident, "functions": functions}


def without(kind):
    return kind.removesuffix(WITHOUT)


def write_export(folder):
    import keras_reformer
    from keras_reformer.export import export_saved_model

    model = keras_reformer.ReformerCausalLM(**SIZES)
    return export_saved_model(model, folder)


def ask(name, requests, log):
    """Requests to one endpoint of an export that another process wrote."""
    import numpy as np
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        path = measuring.call_elsewhere(write_export, folder)
        loaded = tf.saved_model.load(path)
    endpoint = getattr(loaded, name)
    draws = np.random.default_rng(0)
    for _ in range(requests):
        for x in endpoint(**request(name, draws)).values():
            x.numpy()
        log.count()


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


def train(requests, log):
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
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: log.count()
    )
    model.fit(
        dataset,
        epochs=EPOCHS,
        steps_per_epoch=requests // EPOCHS,
        callbacks=[counting],
        verbose=0,
    )


class Log:
    """Rows of what a process holds, as its requests are counted.

    A row: requests, resident size in MiB, functions, seconds.
    """

    def __init__(self, kind, every):
        self.kind, self.every = kind, every
        self.rows, self.done = [], 0
        self.start = time.perf_counter()

    def count(self):
        self.done += 1
        if self.done % self.every and self.done > 1:
            return
        seconds = time.perf_counter() - self.start
        resident, functions = measuring.resident_memory(), num_functions()
        row = self.done, round(resident, 2), functions, round(seconds, 1)
        self.rows.append(row)
        if self.done % (10 * self.every) == 0:
            print(
                f"{self.kind:<18}{self.done:>7,} {seconds:6.0f} s, "
                f"{resident:.1f} MiB, {functions} functions",
                flush=True,
            )


def num_functions():
    """Functions in TensorFlow's registry, those of all traces."""
    from tensorflow.python.eager import context

    return len(context.context().list_function_names())


def tables(records, options):
    """What each process holds in its course."""
    columns = {
        "case": "{kind}",
        "requests or steps": "{requests:,}",
        "a second": "{rate:.0f}",
        "MiB after a fifth": "{fifth[1]:.1f}",
        "at the end": "{resident:.1f}",
        "MiB per 1,000, first half": "{first_half:+.2f}",
        "second half": "{second_half:+.2f}",
        "functions after the first": "{start[2]}",
        "functions at the end": "{functions}",
    }
    rows = []
    for record in records:
        log = record["log"]
        requests, resident, functions, seconds = log[-1]
        half = len(log) // 2
        summary = {
            "rate": requests / max(seconds, 0.1),
            "resident": resident,
            "functions": functions,
            "start": log[0],
            "fifth": log[len(log) // 5],
            "first_half": slope(log[:half]),
            "second_half": slope(log[half:]),
        }
        rows.append(record | summary)
    yield "Many requests, many steps", *reporting.rows(rows, columns)


def slope(rows):
    """MiB that a further thousand requests take, by least squares."""
    requests, resident, *_ = zip(*rows, strict=True)
    return 1000 * statistics.linear_regression(requests, resident).slope


def plot(records, options):
    """Resident size against requests."""
    names = [*ENDPOINTS, "train"]
    styles = {
        kind + end: {"color": f"C{i}", "linestyle": line, "marker": ""}
        for i, kind in enumerate(names)
        for end, line in (("", "solid"), (WITHOUT, "dashed"))
    }
    panel = {
        "lines": {x["kind"]: [row[:2] for row in x["log"]] for x in records},
        "styles": styles,
        "xlabel": "requests, or training steps",
        "ylabel": "resident size (MiB)",
        "legend": {"fontsize": "small", "loc": "lower right"},
    }
    return reporting.picture([[panel]], width=6)
