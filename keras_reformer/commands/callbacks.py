"""Callbacks of a training run: its record, its clock, its cut epochs."""

import contextlib
import csv
import math
import os
import time

import keras

from keras_reformer.commands.checkpoints import NotFinite, save_checkpoint
from keras_reformer.commands.files import replacing

LOG_FIELDS = (
    "epoch",
    "step",
    "averaged_steps",
    "seconds",
    "learning_rate",
    "loss",
    "bits_per_byte",
    "val_loss",
    "val_bits_per_byte",
)


class RunRecorder(keras.callbacks.Callback):
    """Writes a log row at the end of an epoch, and checkpoints.

    The row is written before the checkpoint of the same step, so that a
    checkpoint never lacks its row; `truncate_log` drops the rows that a
    killed run wrote after its last checkpoint. Goes after callbacks that may
    stop the training, so that `stopped` says whether one did.

    It raises `NotFinite`, and writes nothing more, where a loss or weights
    are NaN or infinite: what was written before is the last good state.

    Args:
        log_path: str. CSV file with the columns `LOG_FIELDS`.
        checkpoint_path: str. The checkpoint to replace again and again.
        fingerprint: dict. Settings that a resumed run must share.
        save_every: int or `None`. Steps between checkpoints in an epoch.
        step: int. Steps done when training starts.
        seconds: float. Seconds of training done when training starts.
    """

    def __init__(
        self,
        log_path,
        checkpoint_path,
        fingerprint,
        save_every=None,
        step=0,
        seconds=0.0,
    ):
        super().__init__()
        self.log_path = log_path
        self.checkpoint_path = checkpoint_path
        self.fingerprint = fingerprint
        self.save_every = save_every
        self.step = step
        self.stopped = False
        self._started = time.monotonic() - seconds
        # Seconds of training until the last epoch's or checkpoint's end,
        # validation included.
        self.seconds = seconds

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_start = self.step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self._check_finite(logs)
        due = self.save_every and self.step % self.save_every == 0
        # The epoch's last step is saved after its validation and its row.
        is_last = batch + 1 == self.params["steps"] or self.model.stop_training
        if due and not is_last:
            self.seconds = time.monotonic() - self._started
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self._check_finite(logs)
        self.stopped = self.model.stop_training
        self.seconds = time.monotonic() - self._started
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "averaged_steps": self.step - self._epoch_start,
            "seconds": round(self.seconds, 3),
            "learning_rate": float(self.model.optimizer.learning_rate),
            **(logs or {}),
        }
        append_log(self.log_path, row)
        self._save()

    def _check_finite(self, logs):
        for name in ("loss", "val_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise NotFinite(f"{name} is {value} after step {self.step}")

    def _save(self):
        save_checkpoint(
            self.checkpoint_path,
            self.model,
            step=self.step,
            seconds=self.seconds,
            fingerprint=self.fingerprint,
        )


class EndAfterEpoch(keras.callbacks.Callback):
    """Ends a `fit` after `epoch`, whatever its `epochs`.

    A cut epoch has its own `steps_per_epoch` and so its own `fit`, which
    should still show how many epochs there are in all.
    """

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch >= self.epoch:
            self.model.stop_training = True


class TimeLimit(keras.callbacks.Callback):
    """Stops training once `seconds` have passed since this was made."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self._started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self._started >= self.seconds:
            self.model.stop_training = True


def append_log(path, row, fields=LOG_FIELDS):
    """Appends one row to a CSV log, with the header if the file is new."""
    is_new = not os.path.exists(path)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read_log(path):
    """Returns the rows of a CSV log, as dicts of numbers or `None`."""
    return [
        {name: float(text) if text else None for name, text in row.items()}
        for row in _whole_rows(path)
    ]


def truncate_log(path, step):
    """Drops the rows of a CSV log that were written after `step`."""
    if not os.path.exists(path):
        return
    rows = [row for row in _whole_rows(path) if int(row["step"]) <= step]
    if not rows:
        os.remove(path)
        return
    with replacing(path) as temporary:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        for row in rows:
            append_log(temporary, row)


def _whole_rows(path):
    """The rows of a log, without those that a kill or a full disk has cut."""
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return [row for row in csv.DictReader(file) if _is_whole(row)]


def _is_whole(row):
    try:
        int(row["step"])
        for name in LOG_FIELDS:
            float(row[name] or 0)
    except (KeyError, TypeError, ValueError):
        return False
    # `DictReader` gives None where a line ends early.
    return all(row[name] is not None for name in LOG_FIELDS)
