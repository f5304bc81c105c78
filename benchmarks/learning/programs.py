"""Writes a run's steps as programs that jax alone runs, on a GPU say.

    python benchmarks/learning/recall.py ... --folder FOLDER --export
    python benchmarks/learning/on_device.py FOLDER/*-*  # with jax and NumPy
    python benchmarks/learning/recall.py ... --folder FOLDER --report

TensorFlow traces, `jax2tf.call_tf` lowers, `jax.export` writes StableHLO: one
function from weights, state, optimizer and batch to their next values, that
`fit` would compile. A run's folder gets

`plan.pickle.xz`: what to run on which batches (`batches.py`), and beside it
stand, under names made from what they hold,

- `programs/*.xz`, for each stage and evaluation,
- `values/*.npz`: the initial values of their arguments.

Runs share what is the same: all seeds the programs, most kinds the values.

Needs jax, beside TensorFlow for a CPU.
"""

import contextlib
import hashlib
import io
import lzma
import os
import pickle
import re

import batches
import jax
import keras
import numpy as np
import tensorflow as tf
from jax import export
from jax.experimental import jax2tf

from keras_reformer.distribute.lowering import wide_integers
from keras_reformer.distribute.optimizers import FunctionalOptimizer
from keras_reformer.ops import tracing

# Those of the mean loss: its total and its count.
LOSS_VARIABLES = 2


def export_training(model, stages, folder, about, evaluate_every, start=None):
    """Writes what training a compiled model takes.

    Args:
        model: a model of this library, with its own loss or a classifier's.
        stages: list of `runs.Stage`.
        folder: path of the run.
        about: dict, what the weights follow from.
        evaluate_every: int. Steps between validations.
        start: `runs.Start`, or None.
    """
    plan = {
        "about": about,
        "values": _write_values(model, folder),
        "start": None if start is None else _start(start, model, folder),
        "evaluate_every": evaluate_every,
        "stages": [_export_stage(model, stage, folder) for stage in stages],
        "evaluations": [],
    }
    _write_plan(folder, plan)


def _start(start, model, folder):
    """Where trained values come from, and which go where."""
    return {
        "folder": os.path.relpath(start.folder, folder),
        "numbers": {
            "trainable": _shared(start.model, model, "trainable_variables"),
            "state": _shared(start.model, model, "non_trainable_variables"),
        },
    }


def _shared(source, target, name):
    """Numbers of what is pretrained among the models' variables."""
    found = []
    for model in (source, target):
        numbers = {id(x): i for i, x in enumerate(getattr(model, name))}
        weights = [id(x) for part in model.pretrained for x in part.weights]
        found.append([numbers[x] for x in weights if x in numbers])
    return list(zip(*found, strict=True))


def _export_stage(model, stage, folder):
    validation = batches.parts(stage.validation(), stage.batch_size)
    return {
        "program": _export(
            folder,
            model,
            training_step(model),
            stage.batch(0),
            shapes(model.optimizer.variables),
        ),
        "steps": stage.steps,
        "batch": stage.batch,
        "columns": stage.columns,
        "test": _export_test(folder, model, validation),
        "validation": validation,
        "summary": _summary(model),
    }


def _summary(model):
    """How `evaluate` makes one result of the batches'."""
    has_own_loss = hasattr(model, "training_loss")
    return batches.mean if has_own_loss else batches.keras_mean


def export_evaluation(model, given, folder, case, summarize):
    """Adds an evaluation of the trained weights to a plan.

    Args:
        model: a compiled model of the same variables as the trained one.
        given: `batches.Batches`.
        folder: path of the run.
        case: dict, to tell results by.
        summarize: function of the batches' results and weights to a dict.
    """
    plan = batches.load_plan(folder)
    plan["evaluations"].append(
        {
            "program": _export_test(folder, model, given),
            "case": case,
            "given": given,
            "summary": summarize,
        }
    )
    _write_plan(folder, plan)


def _write_plan(folder, plan):
    path = folder / batches.PLAN
    path.write_bytes(lzma.compress(pickle.dumps(plan)))


def _write_values(model, folder):
    """Where kinds begin with the same values they share a file; its name."""
    model.optimizer.build(model.trainable_variables)
    arrays = batches.name_values(
        trainable=model.trainable_variables,
        state=model.non_trainable_variables,
        optimizer=model.optimizer.variables,
    )
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)
    return _store(folder, "values", written.getvalue(), ".npz")


def _store(folder, kind, content, suffix, key=None):
    """Writes a file named after its content or key; its path from the
    folder of the runs."""
    digest = hashlib.sha256(key or content).hexdigest()[:16]
    name = f"{kind}/{digest}{suffix}"
    path = folder.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return name


# === Steps as functions of values ===


def training_step(model):
    """From trainable, state, batch and optimizer to the loss and the first,
    second and last anew."""
    optimizer = FunctionalOptimizer(model.optimizer, model.trainable_variables)

    def step(trainable, state, batch, optimizer_state):
        mapping = _mapping(model, trainable, state)
        with (
            keras.StatelessScope(state_mapping=mapping) as scope,
            tf.GradientTape() as tape,
        ):
            tape.watch(trainable)
            loss = _loss(model, *batch)
        state = [
            scope.get_current_value(variable)
            for variable in model.non_trainable_variables
        ]
        gradients = tape.gradient(loss, trainable)
        gradients = [tf.convert_to_tensor(each) for each in gradients]
        trainable, optimizer_state = optimizer.apply(
            optimizer_state, gradients, trainable
        )
        return loss, trainable, state, optimizer_state

    return step


def _loss(model, x, y, weights=None):
    if hasattr(model, "training_loss"):
        return model.training_loss(x, y, weights)
    outputs = model(x, training=True)
    return model.compute_loss(x, y, outputs, weights)


def _test_step(model, batch):
    """From trainable, state and batch to the metrics of the batch."""
    if len(model.metrics_variables) <= LOSS_VARIABLES:
        # Some metrics make their variables when they see a batch.
        first = batches.parts(batch, 1).batch(0)
        model.test_on_batch(*first)

    def step(trainable, state, batch):
        mapping = _mapping(model, trainable, state)
        mapping += [
            (variable, tf.zeros(variable.shape, variable.dtype))
            for variable in model.metrics_variables
        ]
        with keras.StatelessScope(state_mapping=mapping):
            return model.test_step(batch)

    return step


def _mapping(model, trainable, state):
    return [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, state, strict=True),
    ]


# === Export ===


def _export_test(folder, model, given):
    batch = given.batch(0)
    return _export(folder, model, _test_step(model, batch), batch)


def _export(folder, model, function, batch, *more):
    """Stores a step's program; its path from the folder of the runs."""
    arguments = (
        shapes(model.trainable_variables),
        shapes(model.non_trainable_variables),
        keras.tree.map_structure(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), batch
        ),
        *more,
    )
    exported = export_for_gpu(function, arguments)
    # Constants as long as the sequence are most of it.
    content = lzma.compress(exported.serialize())
    return _store(folder, "programs", content, ".xz", _without_names(exported))


def export_for_gpu(function, arguments):
    """A TensorFlow function of arrays as a program that jax alone runs.

    Args:
        function: takes and returns structures of tensors.
        arguments: tuple of structures of `jax.ShapeDtypeStruct`.

    Returns:
        `jax.export.Exported`.
    """
    called = jax2tf.call_tf(
        tf.function(function, autograph=False, jit_compile=True),
        has_side_effects=False,
    )
    with _for_a_gpu():
        return export.export(
            jax.jit(called),
            platforms=["cpu"],
            # What TensorFlow lowers for a CPU has no operations of its own.
            disabled_checks=[export.DisabledSafetyCheck.platform()],
        )(*arguments)


@contextlib.contextmanager
def _for_a_gpu():
    """Large tiles, and the 64 bits that seed generators have."""
    with tracing.lowering_for("gpu"), wide_integers():
        yield


def _without_names(exported):
    """The program's text, equal for equal programs traced one after another:
    TensorFlow numbers functions as they come."""
    text = re.sub(r'loc\((?:#loc\d*|"[^"]*")\)', "", exported.mlir_module())
    text = re.sub(r"(?m)^#loc.*$", "", text)
    names = {}
    text = re.sub(
        r"@[\w.$-]+",
        lambda found: names.setdefault(found[0], f"@{len(names)}"),
        text,
    )
    return text.encode()


def shapes(variables):
    return [
        jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        for variable in variables
    ]
