"""Checkpoints from which a killed run goes on bit for bit.

`keras.callbacks.BackupAndRestore` and `model.save_weights` (looked at in
Keras 3.15) keep weights and optimizer variables, the iteration included, but
neither the states of seed generators nor, when restoring, the step inside an
epoch; and they overwrite the file in place. So a checkpoint here is one .npz
of `model.variables` (seed states are part of those) and
`optimizer.variables`, with its step and configuration inside, replaced
atomically: a kill leaves the old one or the new one, never a mixture.
"""

import dataclasses
import json
import os
import zipfile

import numpy as np

FILE_NAME = "checkpoint.npz"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A run's state after some step.

    Args:
        step: int. Training steps done.
        seconds: float. Time spent in training until then.
        fingerprint: dict. The settings that decide the weights, see
            `TrainingConfig.fingerprint`, and the data's digest.
        values: list of arrays. Every variable of model and optimizer.
    """

    step: int
    seconds: float
    fingerprint: dict
    values: list


def save_checkpoint(path, model, *, step, seconds, fingerprint):
    """Writes a checkpoint file, atomically.

    Args:
        path: str. The file to write or replace.
        model: A compiled Keras model whose optimizer is built.
        step: int. Training steps done.
        seconds: float. Time spent in training.
        fingerprint: dict. Settings that a resumed run must share.
    """
    about = {"step": step, "seconds": seconds, "fingerprint": fingerprint}
    arrays = {
        f"{index:05d}": variable.numpy()
        for index, variable in enumerate(_state_variables(model))
    }
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        np.savez(file, about=np.asarray(json.dumps(about)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path, fingerprint):
    """Reads a checkpoint file and checks that it belongs to this run.

    Args:
        path: str. The file.
        fingerprint: dict. The settings of the run that wants to resume.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: if the file is no checkpoint or was written by a run with
            other settings.
    """
    try:
        with np.load(path) as arrays:
            about = json.loads(str(arrays["about"]))
            names = sorted(set(arrays.files) - {"about"})
            values = [arrays[name] for name in names]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"`{path}` is not a readable checkpoint.") from error
    _check_same_run(path, about["fingerprint"], fingerprint)
    return Checkpoint(**about, values=values)


def restore(model, checkpoint):
    """Gives a compiled model the variables of a checkpoint.

    Args:
        model: A compiled Keras model of the checkpoint's configuration.
        checkpoint: A `Checkpoint`.

    Raises:
        ValueError: if the model's variables are other ones.
    """
    variables = _state_variables(model)
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in checkpoint.values]:
        raise ValueError(
            "The checkpoint holds other variables than this model: it was "
            "written by another version. Expected "
            f"{len(shapes)} of given shapes. Received: "
            f"{len(checkpoint.values)}"
        )
    for variable, value in zip(variables, checkpoint.values, strict=True):
        variable.assign(value)


def _state_variables(model):
    # Only a built optimizer has its slots; `fit` would build it too late.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _check_same_run(path, theirs, ours):
    differing = [
        f"{name}={ours.get(name)} (checkpoint: {theirs.get(name)})"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise ValueError(
            f"The checkpoint `{path}` was written with another "
            f"configuration. Differing: {', '.join(differing)}. Give it the "
            "same settings, or this run another name."
        )
