"""A process that trains on an engine, for tests to kill or to pair.

    python tests/support/engine_worker.py FOLDER [--die-at STEP]
        [--process INDEX ADDRESS]

Writes the weights to `FOLDER/weights-INDEX.npz` at the end.
"""

import argparse
import os
import pathlib
import sys

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--die-at", type=int, default=-1)
parser.add_argument("--process", nargs=2, default=["0", ""])
options = parser.parse_args()
index, address = int(options.process[0]), options.process[1]
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["JAX_PLATFORMS"] = "cpu"
count = 1 if address else 2
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

# ruff: noqa: E402
import keras
import numpy as np

from keras_reformer.distribute import JaxEngine, initialize
from tests.support import engines, tiny

if address:
    initialize(address, 2, index, timeout=200)


class Dies(keras.callbacks.Callback):
    """Ends the process at once, in the middle of an epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if 2 * self.epoch + batch == options.die_at:
            os._exit(9)


engine = JaxEngine()
assert engine.num_devices == 2, engine
ids = tiny.make_ids(8, 24)
model = tiny.make_model(**tiny.SMALLEST, dropout=0.1)
if address:
    # Each process has its rows of every batch, and begins with other weights.
    keras.utils.set_random_seed(index)
    model.head.kernel.assign_add(0.1 * index * np.ones(model.head.kernel.shape))
    rows = np.arange(8).reshape(2, 2, 2)[:, index].reshape(-1)
    ids = ids[rows]
model.compile(keras.optimizers.Adam(0.01), engine=engine)
history = model.fit(
    ids,
    batch_size=2 if address else 4,
    epochs=4,
    shuffle=False,
    verbose=0,
    callbacks=[
        keras.callbacks.BackupAndRestore(
            str(options.folder / f"backup-{index}"), delete_checkpoint=False
        ),
        Dies(),
    ],
)
arrays = engines.values(model)
loss = np.array(history.history["loss"])
np.savez(options.folder / f"weights-{index}.npz", loss, *arrays)
