"""Half a million tokens as one sequence: a few steps of `fit`.

    python benchmarks/run.py half_million [--data FILE] [--steps 3] [--xla 1]

Trains a byte-level model of 6 blocks (local and LSH attention in turn, width
256, 2 heads of 64, feed-forward 512) on windows of 524,288 bytes with Adam,
in a process of its own, and prints each step's loss and seconds and the
process's greatest resident size ever. `--data` takes what `keras-reformer
train` does; the sources of Python's own standard library are the default.
"""

import itertools
import time

import measuring

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
QUICK = {"length": 128, "steps": 2}
OPTIONS = {
    "data": ("python", "a file, a folder, or python"),
    "length": LENGTH,
    "steps": 3,
    "learning_rate": 1e-3,
    "xla": (0, "1 compiles the steps"),
}


def cases(options):
    return [{name: getattr(options, name) for name in OPTIONS}]


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
    for record in records:
        steps = zip(record["losses"], record["seconds"], strict=True)
        yield (
            f"{record['length']:,} tokens, {record['parameters']:,} "
            f"parameters, {'XLA' if record['xla'] else 'no XLA'}: "
            f"peak of the process {record['peak'] / 1024:.2f} GiB",
            ("step", "loss, nats", "s"),
            [
                (index, f"{loss:.4f}", f"{seconds:.1f}")
                for index, (loss, seconds) in enumerate(steps, 1)
            ],
        )
