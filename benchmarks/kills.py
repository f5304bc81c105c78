"""Kills training runs, resumes them, and compares the ends bit for bit.

    python benchmarks/kills.py [--kills 20] [--seed 0]

Runs `keras-reformer train` once undisturbed; then it starts the same run
again and again, ends it by `kill -9`, finishes it by `--resume`, and compares
every variable of model and optimizer, those of the model file, and the log
with the undisturbed run's. Odd kills come at a random moment of the whole
command, even ones while a checkpoint is written.
"""

import argparse
import csv
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import measuring

# A checkpoint of 5 MB every second step, so that many moments are writes.
SETTINGS = (
    "--no-jit --length 128 --chunk-length 16 --batch-size 1 --layers 2 "
    "--heads 2 --hidden-dim 96 --intermediate-dim 384 --num-hashes 1 "
    "--dropout 0.1 --warmup 2 --steps 40 --steps-per-epoch 15 "
    "--validation-windows 2 --save-every 2 --sample-length 8"
).split()
WRITING = "tmp-checkpoint.npz"
FILES = ("checkpoint.npz", "checkpoint-previous.npz", WRITING)


def start(folder, name, *more):
    paths = ["--output", folder / "runs", "--export", folder / "exports"]
    return subprocess.Popen(
        [sys.executable, "-m", "keras_reformer.cli", "train", *SETTINGS]
        + list(map(str, ["--name", name, *paths, *more])),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finish(process):
    """Waits for a process, and returns what it printed."""
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {text[-300:]}")
    return text


def kill_at(process, moment):
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)


def kill_while_writing(process, run, number, delay):
    """Kills once checkpoint `number` is being written, `delay` later."""
    seen = 0
    was_there = False
    while process.poll() is None and seen < number:
        is_there = (run / WRITING).exists()
        seen += is_there and not was_there
        was_there = is_there
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)


def disturbed(folder, number, seconds, chance):
    """Kills and resumes one run; returns its row of the table."""
    name = f"kill{number}"
    run = folder / "runs" / name
    process = start(folder, name)
    began = time.monotonic()
    if number % 2:
        kill_at(process, chance.uniform(0, seconds))
    else:
        checkpoint, delay = chance.randint(1, 20), chance.uniform(0, 0.02)
        kill_while_writing(process, run, checkpoint, delay)
    process.communicate()
    moment = time.monotonic() - began
    left = [file for file in FILES if (run / file).exists()]
    text = finish(start(folder, name, "--resume"))
    resumed = [line for line in text.splitlines() if "resumed" in line]
    return (
        number,
        "writing" if number % 2 == 0 else "any",
        f"{moment:.1f}",
        "ended before" if process.returncode == 0 else "killed",
        "yes" if WRITING in left else "no",
        resumed[0].split()[-1] if resumed else "0",
        "yes" if same_end(folder / "runs" / "undisturbed", run) else "NO",
    )


def same_end(expected, run):
    """Whether two runs ended alike, bit by bit."""
    ours, theirs = variables(run), variables(expected)
    return ours == theirs and log_of(run) == log_of(expected)


def variables(run):
    """The bytes of every variable in a run's checkpoint and model file."""
    import keras
    import numpy as np

    with np.load(run / "checkpoint.npz") as arrays:
        names = sorted(set(arrays.files) - {"about"})
        found = [arrays[name].tobytes() for name in names]
    model = keras.saving.load_model(run / "model.keras", compile=False)
    return found + [np.asarray(each).tobytes() for each in model.variables]


def log_of(run):
    """A run's steps and losses of whole epochs."""
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # A resumed epoch's averages are those of the steps after the kill.
    return [(row["step"], row["val_loss"]) for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args()
    print(measuring.describe_machine(), flush=True)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import keras_reformer  # noqa: F401  The models that files name.

    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        began = time.monotonic()
        finish(start(folder, "undisturbed"))
        seconds = time.monotonic() - began
        rows = []
        for number in range(1, options.kills + 1):
            rows.append(disturbed(folder, number, seconds, chance))
            print(*rows[-1], flush=True)
    header = (
        "kill",
        "moment",
        "after s",
        "found",
        "half a file left",
        "resumed at step",
        "equal end",
    )
    title = f"{len(rows)} kills; undisturbed, the command takes {seconds:.0f} s"
    measuring.report([(title, header, rows)], options.markdown)


if __name__ == "__main__":
    main()
