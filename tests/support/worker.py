"""A worker of a cluster, to be run in a process of its own.

    TF_CONFIG=... python -m tests.support.worker FOLDER TASK [KILL_AT]

trains a model on all workers with a backup at the end of each epoch, and
writes weights and results to `FOLDER/worker-INDEX.npz`. With `KILL_AT` it
kills itself in the middle of that epoch.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

EPOCHS = 3
ROWS, LENGTH, BATCH = 5, 17, 4
TIMEOUT = 100


def main(folder, task, kill_at=None):
    # Before anything else of TensorFlow has run, as it asks for.
    from keras_reformer.models import multi_worker_strategy

    strategy = multi_worker_strategy(timeout=TIMEOUT)
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    with strategy.scope():
        model = make_model(task)
    callbacks = [backup(folder, index)]
    if kill_at is not None:
        callbacks.append(kill(int(kill_at)))
    found = results(model, task, callbacks)
    np.savez(Path(folder) / f"worker-{index}.npz", **found)


def make_model(task):
    """A compiled model for `task`."""
    import keras

    from keras_reformer.models import ReformerClassifier
    from tests.support import tiny

    if task == "classifier":
        keras.utils.set_random_seed(3)
        model = ReformerClassifier(
            num_classes=3, **{**tiny.SIZES, **tiny.SMALLEST}
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        return model
    if task == "dropout":
        model = tiny.make_spread_model(dropout=0.5)
        optimizer = keras.optimizers.AdamW(1e-2, global_clipnorm=1.0)
    else:
        model = tiny.make_spread_model(**tiny.SMALLEST)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, metrics=["accuracy"])
    return model


def data(task):
    from tests.support import tiny

    ids = tiny.make_ids(ROWS, LENGTH)
    inputs = {"token_ids": ids, "padding_mask": tiny.make_mask(ids)}
    return (inputs, np.arange(ROWS) % 3) if task == "classifier" else (inputs,)


def backup(folder, index):
    """A backup by the first worker, from which all of them go on."""
    import keras

    first = index == 0
    return keras.callbacks.BackupAndRestore(
        str(Path(folder) / "backup"),
        save_freq="epoch" if first else sys.maxsize,
        delete_checkpoint=False,
    )


def kill(epoch):
    import keras

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == epoch:
                os.kill(os.getpid(), signal.SIGKILL)

    return Kill()


def results(model, task, callbacks=()):
    """Weights after training, the last epoch's results, and predictions."""
    from tests.support import tiny

    options = {"batch_size": BATCH, "verbose": 0}
    history = model.fit(
        *data(task),
        epochs=EPOCHS,
        shuffle=False,
        callbacks=list(callbacks),
        **options,
    ).history
    evaluated = model.evaluate(*data(task), return_dict=True, **options)
    return {
        **{f"fit {name}": values[-1] for name, values in history.items()},
        **{f"evaluate {name}": value for name, value in evaluated.items()},
        "predictions": model.predict(data(task)[0], **options),
        **{f"value {i}": v for i, v in enumerate(tiny.values(model))},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
