"""Half a million tokens as one sequence: a few steps of `fit`.

    python benchmarks/run.py half_million [--data FILE] [--steps 3] [--xla 1]

Prints each step's loss and seconds and the process's greatest resident size
ever. `--data` takes what `keras-reformer train` does; the sources of Python's
own standard library are the default.
"""

import itertools
import time

import measuring
import reporting

LENGTH = 524288
MODEL = {
    "vocabulary_size": 258,
    "num_layers": 6,
    "num_heads": 2,
    "key_dim": 64,
    "hidden_dim": 256,
    "intermediate_dim": 512,
    "num_hashes": 1,
}
KEYS = ("length", "xla")
DEFAULTS = {"allocators": ["default"]}
OPTIONS = {
    "data": ("python", "a file, a folder, or python"),
    "length": (LENGTH, "", 128),
    "steps": (3, "", 2),
    "learning_rate": 1e-3,
    "xla": (0, "1 compiles the steps"),
}


def work(case):
    """Trains, and tells what it cost."""
    import keras

    import keras_reformer
    from keras_reformer import data

    corpus = data.split_by_position(data.read_corpus(case["data"]))
    batches = data.training_windows(
        corpus.train, length=case["length"], batch_size=1, seed=0
    )
    model = keras_reformer.ReformerCausalLM(
        **MODEL, max_sequence_length=case["length"], seed=0
    )
    model.compile(
        keras.optimizers.Adam(case["learning_rate"]),
        jit_compile=bool(case["xla"]),
    )
    ends = [time.perf_counter()]
    log = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    history = model.fit(
        batches,
        steps_per_epoch=1,
        epochs=case["steps"],
        shuffle=False,
        verbose=0,
        callbacks=[log],
    )
    return {
        "parameters": model.count_params(),
        "peak": measuring.peak_memory(),
        "losses": history.history["loss"],
        "seconds": [end - start for start, end in itertools.pairwise(ends)],
    }


def tables(records, options):
    columns = {"step": "{step}", "loss, nats": "{loss:.4f}", "s": "{s:.1f}"}
    for record in records:
        title = (
            f"{record['length']:,} tokens, {record['parameters']:,} "
            f"parameters, {'XLA' if record['xla'] else 'no XLA'}: "
            f"peak of the process {record['peak'] / 1024:.2f} GiB"
        )
        found = zip(record["losses"], record["seconds"], strict=True)
        steps = [
            {"step": index, "loss": loss, "s": seconds}
            for index, (loss, seconds) in enumerate(found, 1)
        ]
        yield title, *reporting.rows(steps, columns)
