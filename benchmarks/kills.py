"""Kills training runs, resumes them, and compares the ends bit for bit.

    python benchmarks/run.py kills [--kills 20] [--seed 0]

Odd kills come at a random moment, even ones at a random moment after a file of
a random checkpoint was begun.

Each run is a process of its own, forked from one that has imported
TensorFlow and computed nothing. Takes what the command does between reading
its options and its report, from `keras_reformer.commands`: the command itself
would export and prove a model after each of the runs.
"""

import contextlib
import csv
import multiprocessing
import pathlib
import random
import tempfile
import time

# Checkpoints of 3 MB, every second step, so that many moments are writes.
SETTINGS = {
    "length": 128,
    "batch_size": 1,
    "layers": 1,
    "heads": 2,
    "hidden_dim": 128,
    "intermediate_dim": 512,
    "attention": ("lsh",),
    "chunk_length": 16,
    "num_hashes": 1,
    "dropout": 0.1,
    "warmup": 2,
    "steps": 40,
    "steps_per_epoch": 15,
    "save_every": 2,
    "validation_windows": 1,
    "jit": False,
}
# The longest that a file of a checkpoint takes, roughly.
LONGEST_WRITE = 0.03
KEYS = ("kills", "seed")
OPTIONS = {"kills": (20, "", 2), "seed": 0}


def work(case):
    """Rows of all kills, and the seconds of an undisturbed run."""
    chance = random.Random(case["seed"])
    with tempfile.TemporaryDirectory() as output:
        runs = Runs(pathlib.Path(output))
        runs.finish("warm-up")
        began = time.monotonic()
        runs.finish("undisturbed")
        seconds = time.monotonic() - began
        rows = []
        for number in range(1, case["kills"] + 1):
            rows.append(disturb(runs, number, seconds, chance))
            print(*rows[-1].values(), flush=True)
    return {"undisturbed": seconds, "rows": rows}


def fit(output, name, resume):
    """What each process does: the training of the command."""
    from keras_reformer.commands import train
    from keras_reformer.commands.config import TrainingConfig
    from keras_reformer.commands.run_folder import RunFolder

    config = TrainingConfig(
        **SETTINGS, output=str(output), name=name, resume=resume
    )
    out = output / f"{name}.txt"
    with out.open("w") as file, contextlib.redirect_stdout(file):
        corpus = train.read_data(config)
        train.fit_model(config, corpus, RunFolder(str(output / name)))


class Runs:
    """Runs of one configuration, in one folder."""

    def __init__(self, output):
        self.output = output
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["keras_reformer.commands.train"])

    def start(self, name, resume=False):
        arguments = self.output, name, resume
        process = self.context.Process(target=fit, args=arguments)
        process.start()
        return process

    def finish(self, name, resume=False):
        """Runs to the end, and returns what was printed."""
        process = self.start(name, resume)
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{name} ended with {process.exitcode}")
        return (self.output / f"{name}.txt").read_text()

    def has_begun(self, name):
        """Whether a checkpoint's file is there that has no name yet."""
        return (self.output / name / "tmp-checkpoint.npz").exists()

    def end(self, name):
        """The bytes of every variable, and step and loss of each epoch."""
        import numpy as np

        with np.load(self.output / name / "checkpoint.npz") as arrays:
            names = sorted(set(arrays.files) - {"about"})
            variables = [arrays[each].tobytes() for each in names]
        with (self.output / name / "log.csv").open(newline="") as file:
            rows = [(x["step"], x["val_loss"]) for x in csv.DictReader(file)]
        return variables, rows


def kill_while_writing(runs, name, process, number, delay):
    """Kills `delay` after the file of checkpoint `number` was begun."""
    begun, was_there = 0, False
    while process.is_alive() and begun < number:
        is_there = runs.has_begun(name)
        begun += is_there and not was_there
        was_there = is_there
    time.sleep(delay)
    process.kill()


def disturb(runs, number, seconds, chance):
    """Kills one run and resumes it: its row of the table."""
    name = f"kill{number}"
    began = time.monotonic()
    process = runs.start(name)
    if number % 2:
        time.sleep(chance.uniform(0, seconds))
        process.kill()
    else:
        checkpoint = chance.randint(1, SETTINGS["steps"] // 2)
        delay = chance.uniform(0, LONGEST_WRITE)
        kill_while_writing(runs, name, process, checkpoint, delay)
    process.join()
    moment = time.monotonic() - began
    half = runs.has_begun(name)
    lines = runs.finish(name, resume=True).splitlines()
    resumed = [line.split()[-1] for line in lines if "resumed" in line]
    equal = runs.end(name) == runs.end("undisturbed")
    return {
        "kill": number,
        "moment": "any" if number % 2 else "writing",
        "after s": f"{moment:.1f}",
        "killed": "yes" if process.exitcode == -9 else "ended before",
        "half a file left": "yes" if half else "",
        "resumed at step": (resumed or ["0"])[0],
        "equal end": "yes" if equal else "NO",
    }


def tables(records, options):
    for record in records:
        rows, seconds = record["rows"], record["undisturbed"]
        title = f"{len(rows)} kills; undisturbed, a run takes {seconds:.0f} s"
        yield title, list(rows[0]), [list(row.values()) for row in rows]
