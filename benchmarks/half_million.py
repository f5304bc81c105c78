"""Half a million tokens as one sequence: a few steps of `fit`.

    python benchmarks/half_million.py [--data FILE] [--steps 3] [--xla 1]

Trains a byte-level model of 6 blocks (local and LSH attention in turn, width
256, 2 heads of 64, feed-forward 512) on windows of 524,288 bytes with Adam,
in a process of its own, and prints each step's loss and seconds and the
process's greatest resident size ever. `--data` takes what `keras-reformer
train` does; the sources of Python's own standard library are the default.
"""

import argparse
import json
import pathlib
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


def work(case):
    """What a worker does: trains, and tells what it cost."""
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
    log = StepLog()
    model.fit(
        batches,
        steps_per_epoch=1,
        epochs=case["steps"],
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=log.write)],
    )
    measuring.answer(
        {
            "parameters": model.count_params(),
            "peak": measuring.peak_memory(),
            "steps": log.steps,
        }
    )


class StepLog:
    """Loss and seconds of each step; an epoch has one."""

    def __init__(self):
        self.steps = []
        self.start = time.perf_counter()

    def write(self, _, logs):
        now = time.perf_counter()
        self.steps.append({"loss": logs["loss"], "seconds": now - self.start})
        self.start = now


def tables(case, found):
    yield (
        f"{case['length']:,} tokens, {found['parameters']:,} parameters, "
        f"{'XLA' if case['xla'] else 'no XLA'}: "
        f"peak of the process {found['peak'] / 1024:.2f} GiB",
        ("step", "loss, nats", "s"),
        [
            (index, f"{step['loss']:.4f}", f"{step['seconds']:.1f}")
            for index, step in enumerate(found["steps"], 1)
        ],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="python", help="a file, a folder, or python")
    add("--length", type=int, default=LENGTH)
    add("--steps", type=int, default=3)
    add("--learning-rate", type=float, default=1e-3)
    add("--xla", type=int, default=0, choices=(0, 1))
    add("--threads", type=int, default=measuring.num_cores())
    add("--markdown", type=pathlib.Path, help="where to store the table")
    add("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    print(measuring.describe_machine(), flush=True)
    names = ("data", "length", "steps", "learning_rate", "xla")
    case = {name: getattr(options, name) for name in names}
    found = measuring.run_worker(__file__, case, threads=options.threads)
    measuring.report(list(tables(case, found)), options.markdown)


if __name__ == "__main__":
    main()
