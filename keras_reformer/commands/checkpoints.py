"""Checkpoints from which a killed run goes on bit for bit.

`keras.callbacks.BackupAndRestore` and `model.save_weights` (looked at in
Keras 3.15) keep weights and optimizer variables, the iteration included, but
neither the states of seed generators nor, when restoring, the step inside an
epoch; and they overwrite the file in place. So a checkpoint here is one .npz
of `model.variables` (seed states are part of those) and
`optimizer.variables`, with its step and configuration inside, replaced
atomically: a kill leaves the old one or the new one, never a mixture. The one
before is kept beside it, for disks that damage what they hold.
"""

import dataclasses
import json
import os

import numpy as np

from keras_reformer.commands.files import replacing

FILE_NAME = "checkpoint.npz"
PREVIOUS_FILE_NAME = "checkpoint-previous.npz"


class NotFinite(Exception):
    """Training has come to numbers that are NaN or infinite."""


class UnreadableCheckpoint(ValueError):
    """A file that is damaged, or no checkpoint."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A run's state after some step.

    Args:
        path: str. Where it was read.
        step: int. Training steps done.
        seconds: float. Time spent in training until then.
        fingerprint: dict. The settings that decide the weights, see
            `TrainingConfig.fingerprint`, and the data's digest.
        values: list of arrays. Every variable of model and optimizer.
    """

    path: str
    step: int
    seconds: float
    fingerprint: dict
    values: list


def save_checkpoint(path, model, *, step, seconds, fingerprint):
    """Writes a checkpoint file, atomically, and keeps the one before it.

    Args:
        path: str. The file to write or replace; what was there becomes
            `PREVIOUS_FILE_NAME` beside it.
        model: A compiled Keras model whose optimizer is built.
        step: int. Training steps done.
        seconds: float. Time spent in training.
        fingerprint: dict. Settings that a resumed run must share.

    Raises:
        NotFinite: if a variable is not; then nothing is written.
        OSError: if there is no room, say; then both files stay.
    """
    arrays = {
        f"{index:05d}": variable.numpy()
        for index, variable in enumerate(_state_variables(model))
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise NotFinite(f"weights are NaN or infinite after step {step}")
    about = {
        "step": step,
        "seconds": seconds,
        "fingerprint": fingerprint,
        "num_values": len(arrays),
    }
    with replacing(path, previous=previous_path(path)) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, about=np.asarray(json.dumps(about)), **arrays)


def previous_path(path):
    """Returns where the checkpoint before the one at `path` is kept."""
    return os.path.join(os.path.dirname(path), PREVIOUS_FILE_NAME)


def load_latest(path, fingerprint):
    """Reads the newest checkpoint that can be read.

    Args:
        path: str. The newest one's file, which may be missing.
        fingerprint: dict. The settings of the run that wants to resume.

    Returns:
        A `Checkpoint`, or `None` if there is no file.

    Raises:
        ValueError: if no file is readable, or the newest that is was written
            by a run with other settings.
    """
    unreadable = None
    for candidate in (path, previous_path(path)):
        try:
            return load_checkpoint(candidate, fingerprint)
        except FileNotFoundError:
            pass
        except UnreadableCheckpoint as error:
            unreadable = unreadable or error
    if unreadable:
        raise unreadable
    return None


def load_checkpoint(path, fingerprint):
    """Reads a checkpoint file and checks that it belongs to this run.

    Args:
        path: str. The file.
        fingerprint: dict. The settings of the run that wants to resume.

    Returns:
        A `Checkpoint`.

    Raises:
        UnreadableCheckpoint: if the file is damaged, or no checkpoint.
        ValueError: if it was written by a run with other settings.
        OSError: if there is no file, or no permission to read it.
    """
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            about = json.loads(str(arrays["about"]))
            names = sorted(set(arrays.files) - {"about"})
            values = [arrays[name] for name in names]
        # A zip file's checksums cover its members, not how many there are.
        # Earlier checkpoints do not say it.
        if len(values) != about.pop("num_values", len(values)):
            raise ValueError(f"only {len(values)} variables are left")
        checkpoint = Checkpoint(path=path, **about, values=values)
    except (FileNotFoundError, PermissionError):
        raise
    # There is no list of what damaged files make their readers raise.
    except Exception as error:
        raise UnreadableCheckpoint(
            f"`{path}` is not a readable checkpoint ({error}). Begin anew by "
            "--overwrite, or choose another --name."
        ) from error
    _check_same_run(path, checkpoint.fingerprint, fingerprint)
    return checkpoint


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
