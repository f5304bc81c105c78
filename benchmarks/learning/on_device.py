"""Trains exported runs, with jax and NumPy alone: on a GPU, say.

    python benchmarks/learning/on_device.py FOLDER/lsh-0 FOLDER/exact-0 ...

`programs.py` writes what is run here. Several runs take turns, so that the
device works on one while others compile or get their batches; equal programs
are compiled once. A run's folder gets `curve.csv`, `evaluations.csv`,
`about.json` and `trained.npz`, its weights. A run that begins with another
one's weights stands behind it in the list.
"""

import argparse
import collections
import concurrent.futures
import functools
import json
import lzma
import multiprocessing
import os
import pathlib
import threading
import time
import traceback

import batches

# Batches of a run that are made while a step runs.
AHEAD = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("folders", nargs="+", type=pathlib.Path, help="the first goes first")
    add("--at-once", type=int, default=8, help="runs that take turns")
    add("--steps", type=int, help="of each stage, at most")
    add("--seconds", type=float, help="when training ends, at the latest")
    options = parser.parse_args()
    end = time.monotonic() + (options.seconds or float("inf"))
    makers = concurrent.futures.ProcessPoolExecutor(
        os.cpu_count(), multiprocessing.get_context("spawn")
    )
    with makers, concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
        programs, started = Programs(), {}
        for folder in map(pathlib.Path.resolve, options.folders):
            started[folder] = pool.submit(
                run, folder, programs, makers, options.steps, end, started
            )
        for folder, each in started.items():
            if each.exception() is not None:
                print(f"{folder} failed:")
                traceback.print_exception(each.exception())


def run(folder, programs, makers, most_steps, end, started):
    """One folder's stages, and then its evaluations.

    Args:
        folder: path of the run.
        programs: `Programs`.
        makers: executor of batches.
        most_steps: int, of each stage, or None.
        end: float. When training ends, by `time.monotonic`.
        started: dict of paths of runs to their futures.
    """
    training = Training(folder, programs, makers)
    if training.plan["start"] is not None:
        training.start(started, **training.plan["start"])
    for stage in training.plan["stages"]:
        steps = min(stage["steps"], most_steps or stage["steps"])
        if not training.train(stage, steps, end):
            print(f"{folder}: time is up", flush=True)
            break
    training.save()
    training.evaluate()


class Programs:
    """Compiled programs, by file; several threads may ask."""

    def __init__(self):
        self._lock = threading.Lock()
        self._found = {}

    def get(self, path, donate, arguments):
        """A program, compiled when it is asked for the first time."""
        with self._lock:
            make = functools.partial(_compile, path, donate, arguments)
            found = self._found.setdefault(path, _Once(make))
        return found()


class _Once:
    """A function's result, computed once."""

    def __init__(self, function):
        self._function, self._lock = function, threading.Lock()

    def __call__(self):
        with self._lock:
            if self._function is not None:
                self._result, self._function = self._function(), None
        return self._result


def _compile(path, donate, arguments):
    import jax
    from jax import export

    start = time.monotonic()
    exported = export.deserialize(bytearray(lzma.decompress(path.read_bytes())))
    compiled = (
        jax.jit(exported.call, donate_argnums=donate)
        .lower(*arguments)
        .compile()
    )
    seconds = time.monotonic() - start
    print(f"{path}: compiled in {seconds:.1f} s", flush=True)
    return compiled


class Training:
    """The values of a run, and how far it has come."""

    def __init__(self, folder, programs, makers):
        # Not in the processes that make batches.
        import jax
        import numpy as np

        jax.config.update("jax_enable_x64", True)
        self.folder, self.plan = folder, batches.load_plan(folder)
        self.programs, self.makers = programs, makers
        self.step, self.seconds, self.rows = 0, 0.0, []
        with np.load(folder.parent / self.plan["values"]) as stored:
            self.trainable, self.state, self.optimizer = (
                [
                    jax.device_put(stored[name])
                    for name in stored
                    if name.startswith(kind)
                ]
                for kind in ("trainable", "state", "optimizer")
            )

    def start(self, started, folder, numbers):
        """Takes the values of another run, when it has ended."""
        import jax
        import numpy as np

        other = (self.folder / folder).resolve()
        if other in started:
            started[other].result()
        with np.load(other / "trained.npz") as stored:
            for kind, pairs in numbers.items():
                values = getattr(self, kind)
                for source, target in pairs:
                    value = stored[f"{kind}-{source}"]
                    values[target] = jax.device_put(value)

    def train(self, stage, steps, end):
        """Trains a stage; whether there was time for all of it."""
        every, first, losses = self.plan["evaluate_every"], self.step, []
        last = first + steps
        start = None
        for batch in self._made(stage["batch"], range(first, last)):
            losses.append(self._train_step(stage["program"], batch))
            # Compiling does not count.
            start = start or time.monotonic()
            is_late = time.monotonic() > end
            self.step += 1
            if (self.step - first) % every == 0 or self.step == last or is_late:
                mean = sum(map(float, losses)) / len(losses)
                seconds = round(self.seconds + time.monotonic() - start, 1)
                self._validate(stage, {"seconds": seconds, "loss": mean})
                losses = []
            if is_late:
                return False
        self.seconds += time.monotonic() - (start or time.monotonic())
        return True

    def _train_step(self, program, batch):
        arguments = self.trainable, self.state, batch, self.optimizer
        step = self._program(program, arguments, donate=(0, 1, 3))
        loss, self.trainable, self.state, self.optimizer = step(*arguments)
        return loss

    def _validate(self, stage, results):
        found = self._test(stage["test"], stage["validation"], stage["summary"])
        row = {"step": self.step, **results, **stage["columns"]}
        row |= {f"val_{name}": value for name, value in found.items()}
        print(self.folder, row, flush=True)
        self.rows.append(row)
        self._write("curve.csv", self.rows)

    def evaluate(self):
        rows = []
        for each in self.plan["evaluations"]:
            found = self._test(each["program"], each["given"], each["summary"])
            rows.append({**each["case"], **found})
            print(self.folder, rows[-1], flush=True)
            self._write("evaluations.csv", rows)

    def _write(self, name, rows):
        (self.folder / name).write_text(batches.table_text(rows))

    def save(self):
        import numpy as np

        values = batches.name_values(trainable=self.trainable, state=self.state)
        np.savez(self.folder / "trained.npz", **values)
        self._save_about()

    def _save_about(self):
        import jax

        about = {
            "machine": f"- {jax.devices()[0].device_kind}, "
            f"jax {jax.__version__}",
            **self.plan["about"],
            "steps_done": self.step,
        }
        (self.folder / "about.json").write_text(json.dumps(about, indent=2))

    def _test(self, program, given, summarize):
        results, weights = [], []
        for batch in self._made(given.batch, range(given.count)):
            arguments = self.trainable, self.state, batch
            results.append(self._program(program, arguments)(*arguments))
            weights.append(batches.weight(batch))
        results = [
            {name: float(value) for name, value in each.items()}
            for each in results
        ]
        return summarize(results, weights)

    def _program(self, name, arguments, donate=()):
        path = self.folder.parent / name
        return self.programs.get(path, donate, arguments)

    def _made(self, batch, numbers):
        """The batches, made ahead by other processes."""
        waiting = collections.deque()
        for number in numbers:
            waiting.append(self.makers.submit(batch, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


if __name__ == "__main__":
    main()
