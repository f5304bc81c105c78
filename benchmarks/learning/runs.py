"""What the scripts on learning share: runs that resume, their tables, pictures.

A run is one kind of model and one seed. It has a folder,
`<folder>/<kind>-<seed>/`, with

- `about.json`: the machine, versions and options it was started with,
- `curve.csv`: a row after every `--evaluate-every` steps,
- `checkpoint.npz`: weights, optimizer, seed generators and the step,
- `evaluations.csv`: what the trained weights gave, a row a case.

Start a script again with the same options, after whatever ended it: finished
runs and evaluations are read, an unfinished one goes on from its checkpoint.
A batch is a function of the seed and the step, and a checkpoint holds the
states of seed generators, so that it goes on as if nothing had happened.
Several processes may share a folder as long as each has its own kinds or
seeds; `--report` makes the tables and the picture of what is there.
"""

import argparse
import csv
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

sys.path.append(str(pathlib.Path(__file__).parents[1]))

# ruff: noqa: E402
import batches
import keras
import measuring
import reporting as reporting
import tensorflow as tf

from keras_reformer.commands import checkpoints
from keras_reformer.commands.files import write_json, write_text

FOLDER = pathlib.Path("runs") / "learning"
# Real texts, where they are.
DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"
# What changes nothing that a run has learned.
_FREE_OPTIONS = {
    "folder",
    "kinds",
    "seeds",
    "report",
    "quick",
    "evaluate",
    "evaluate_queries",
    "documents",
    "data",
    "test",
    "examples",
    "generate",
    "pretraining",
    "rounds",
    "picture",
    "markdown",
    "export",
}


class Stage(NamedTuple):
    """Steps of training on batches of one shape.

    `batch(index)` and the arrays of `validation()` are what `fit` takes: x,
    y and, where not all positions count, weights. `columns` are written to
    each row of the curve.
    """

    steps: int
    batch: Callable[[int], tuple]
    validation: Callable[[], tuple]
    batch_size: int
    columns: dict[str, Any] = {}


class Start(NamedTuple):
    """A run that has the weights to begin with, those of `model.pretrained`."""

    folder: pathlib.Path
    model: keras.Model


# === Options ===

RATE_HELP = "peak of the learning rate, reached after the warm-up"
OPTIMIZER = {
    "learning_rate": (3e-3, RATE_HELP),
    "warmup": (0.05, "share of the steps that the rate rises"),
    "weight_decay": (0.01, "of AdamW"),
    "clip": (1.0, "greatest norm of all gradients, 0 for none"),
    "evaluate_every": (100, "steps between validations, and checkpoints"),
}


def make_parser(documentation, script, kinds, options):
    """A parser with what all scripts have, and `options`: name to default
    and help."""
    parser = argparse.ArgumentParser(
        description=documentation,
        formatter_class=_HelpFormatter,
    )
    name = pathlib.Path(script).stem
    add = parser.add_argument
    add("--kinds", type=words, default=kinds, help="with commas between")
    add("--seeds", type=numbers, default=(0,), help="with commas between")
    for option, (default, help_text) in {**OPTIMIZER, **options}.items():
        flag = f"--{option.replace('_', '-')}"
        kind = {"type": type(default)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        add(flag, **kind, default=default, help=help_text)
    add("--folder", type=pathlib.Path, default=FOLDER / name, help="of runs")
    add("--quick", action="store_true", help="a small setting, for a look")
    add("--report", action="store_true", help="train nothing, report")
    add(
        "--export",
        action="store_true",
        help="train nothing, write programs for on_device.py to the folder",
    )
    add("--picture", type=pathlib.Path, help="default: in the folder")
    add("--markdown", type=pathlib.Path, help="where to store the tables")
    return parser


class _HelpFormatter(
    argparse.ArgumentDefaultsHelpFormatter,
    argparse.RawDescriptionHelpFormatter,
):
    """The documentation as it is, and defaults."""


def parse(parser, quick):
    """Options; `--quick` sets other defaults, and another folder."""
    options = parser.parse_args()
    if options.quick:
        folder = parser.get_default("folder")
        folder = folder.with_name(folder.name + "-quick")
        parser.set_defaults(**quick, folder=folder)
        options = parser.parse_args()
    if options.picture is None:
        options.picture = options.folder / "learning.png"
    return options


def words(text):
    """`"a,b"` as a tuple of strings."""
    return tuple(text.split(","))


def numbers(text):
    """`"1,2"` as a tuple of whole numbers."""
    return tuple(int(part) for part in text.split(","))


def fields(text):
    """`"64:4:600,256:16:400"` as a tuple of tuples of whole numbers."""
    return tuple(
        tuple(int(part) for part in item.split(":"))
        for item in text.split(",")
        if item
    )


def settings(options):
    """The options that a run's weights follow from, with their names."""
    return {
        name: value if isinstance(value, (int, float, bool)) else str(value)
        for name, value in sorted(vars(options).items())
        if name not in _FREE_OPTIONS
    }


# === Training ===


def run_all(options, run, report):
    """`run(options, kind, seed)` for each pair, and then the report."""
    if not options.report:
        print(describe_machine(), flush=True)
        for seed in options.seeds:
            for kind in options.kinds:
                run(options, kind, seed)
                keras.utils.clear_session()
    if not options.export:
        report(options)


def describe_machine():
    """Machine and versions, graphics processors included."""
    devices = tf.config.list_physical_devices("GPU")
    names = [
        tf.config.experimental.get_device_details(device).get("device_name")
        for device in devices
    ]
    lines = [f"- {name}" for name in names]
    return "\n".join([measuring.describe_machine(), *lines])


def compile_model(model, total_steps, options, **arguments):
    """AdamW, a rate that rises and then falls as a cosine, and XLA."""
    warmup = round(options.warmup * total_steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        # A first step at a rate of zero would be lost.
        options.learning_rate / (warmup + 1),
        max(total_steps - warmup, 1),
        alpha=0.01,
        warmup_target=options.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=options.weight_decay,
        beta_2=0.98,
        global_clipnorm=options.clip or None,
    )
    arguments = {"jit_compile": True, **arguments}
    model.compile(optimizer, **arguments)


def run_folder(options, kind, seed):
    return options.folder / f"{kind}-{seed}"


def train(model, stages, options, kind, seed, start=None):
    """Trains a compiled model on what is left of the stages.

    With `export` it writes programs instead; then `start`, a `Start`, says
    which run the first weights are to come from.

    Returns whether all steps are done; not so if a loss or weights have
    become NaN or infinite.
    """
    folder = run_folder(options, kind, seed)
    folder.mkdir(parents=True, exist_ok=True)
    about = {**settings(options), "kind": kind, "seed": seed}
    if options.export:
        import programs

        programs.export_training(
            model, stages, folder, about, options.evaluate_every, start
        )
        return True
    run = _Run(model, folder, about)
    run.resume()
    try:
        first = 0
        for stage in stages:
            run.train_stage(stage, first, options.evaluate_every)
            first += stage.steps
    except checkpoints.NotFinite as error:
        print(f"{_name(folder)} has diverged: {error}", flush=True)
        return False
    return True


class _Run:
    """A model, the folder of its run, and how far it has come."""

    def __init__(self, model, folder, fingerprint):
        self.model, self.folder = model, folder
        self.name = _name(folder)
        self.fingerprint = fingerprint
        self.step, self.seconds, self.rows = 0, 0.0, []

    def resume(self):
        checkpoint = checkpoints.load_latest(
            str(self.folder / checkpoints.FILE_NAME), self.fingerprint
        )
        if checkpoint is None:
            about = {"machine": describe_machine(), **self.fingerprint}
            write_json(str(self.folder / "about.json"), about)
            return
        checkpoints.restore(self.model, checkpoint)
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        rows = read_rows(self.folder / "curve.csv")
        self.rows = [row for row in rows if row["step"] <= self.step]
        print(f"{self.name}: {self.step} steps done", flush=True)

    def train_stage(self, stage, first, evaluate_every):
        """The stage begins at the run's step `first`."""
        end = first + stage.steps
        if self.step >= end:
            return
        # Keras would trace for lengths that differ, not for each.
        self.model.make_train_function(force=True)
        self.model.make_test_function(force=True)
        validation = stage.validation()
        while self.step < end:
            done = self.step - first
            next_stop = done - done % evaluate_every + evaluate_every
            steps = min(next_stop, stage.steps) - done
            self._fit(stage, steps, validation)

    def _fit(self, stage, steps, validation):
        start = time.monotonic()
        history = self.model.fit(
            dataset(stage.batch, self.step, steps),
            steps_per_epoch=steps,
            shuffle=False,
            validation_data=validation,
            validation_batch_size=stage.batch_size,
            verbose=0,
        ).history
        self.step += steps
        self.seconds += time.monotonic() - start
        results = {name: values[0] for name, values in history.items()}
        self._record({**stage.columns, **results})

    def _record(self, results):
        """A row first: a checkpoint never lacks its row."""
        row = {"step": self.step, "seconds": round(self.seconds, 1), **results}
        print(f"{self.name} {_told(row)}", flush=True)
        self.rows.append(row)
        write_rows(self.folder / "curve.csv", self.rows)
        checkpoints.save_checkpoint(
            str(self.folder / checkpoints.FILE_NAME),
            self.model,
            step=self.step,
            seconds=self.seconds,
            fingerprint=self.fingerprint,
        )


def dataset(batch, first, steps):
    """A dataset of `batch(first)`, `batch(first + 1)`, ..., static shapes."""
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), batch(first)
    )
    made = tf.data.Dataset.from_generator(
        lambda: map(batch, range(first, first + steps)),
        output_signature=signature,
    )
    return made.prefetch(2)


def _name(folder):
    return f"{folder.parent.name}/{folder.name}"


def _told(row):
    return ", ".join(f"{name} {_number(value)}" for name, value in row.items())


def _number(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# === Files ===


def read_rows(path):
    """Rows of a CSV file as dicts of what is there, numbers as such."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: _value(text) for name, text in row.items() if text}
            for row in csv.DictReader(file)
        ]


def _value(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write_rows(path, rows):
    """Replaces a CSV file whole."""
    write_text(str(path), batches.table_text(rows))


def evaluate(folder, case, compute):
    """The results of a case, stored ones or those of `compute()`."""
    path = folder / "evaluations.csv"
    rows = read_rows(path)
    for row in rows:
        if all(row.get(name) == value for name, value in case.items()):
            return row
    row = {**case, **compute()}
    print(f"{_name(folder)} evaluated: {_told(row)}", flush=True)
    write_rows(path, [*rows, row])
    return row
