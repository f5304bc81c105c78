"""The model of a run, its optimizer, and its calls of `fit`."""

import math
import sys
from typing import NamedTuple

import keras

from keras_reformer import data
from keras_reformer.commands import callbacks, checkpoints
from keras_reformer.commands.files import replacing
from keras_reformer.metrics import BitsPerByte
from keras_reformer.models import ReformerCausalLM


def build_model(config):
    """Builds the model of a configuration.

    Args:
        config: A `TrainingConfig`.

    Returns:
        A `ReformerCausalLM`.
    """
    keras.utils.set_random_seed(config.seed)
    model = ReformerCausalLM(
        vocabulary_size=data.ByteTokenizer.vocabulary_size,
        num_layers=config.layers,
        num_heads=config.heads,
        hidden_dim=config.hidden_dim,
        intermediate_dim=config.intermediate_dim,
        max_sequence_length=config.length,
        attention_layers=config.attention,
        num_hashes=config.num_hashes,
        num_buckets=config.num_buckets,
        chunk_length=config.chunk_length,
        dropout=config.dropout,
        seed=config.seed,
        dtype=config.precision,
    )
    print(f"model: {model.count_params():,} parameters, {config.precision}")
    return model


def compile_model(model, config):
    """Compiles a model with the optimizer of its configuration.

    Args:
        model: A `ReformerCausalLM`.
        config: A `TrainingConfig`.
    """
    model.compile(
        make_optimizer(config), metrics=[BitsPerByte()], jit_compile=config.jit
    )


def make_optimizer(config):
    """Makes AdamW with warmup, cosine decay and clipping.

    Args:
        config: `learning_rate`, `warmup` and `steps`, as `TrainingConfig` and
            `RecallConfig` have them.

    Returns:
        A Keras optimizer.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        # A first step at a rate of zero would be lost; without warmup this is
        # the peak itself.
        initial_learning_rate=config.learning_rate / (config.warmup + 1),
        decay_steps=config.steps - config.warmup,
        alpha=0.01,
        warmup_target=config.learning_rate if config.warmup else None,
        warmup_steps=config.warmup,
    )
    return keras.optimizers.AdamW(
        schedule, weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0
    )


def train(model, config, corpus, validation, folder, checkpoint=None):
    """Trains up to `config.steps`, from a checkpoint if there is one.

    Args:
        model: A compiled `ReformerCausalLM`.
        config: A `TrainingConfig`.
        corpus: A `Corpus`.
        validation: Batches to validate on after every epoch.
        folder: A `RunFolder`.
        checkpoint: A `Checkpoint` or `None`.

    Returns:
        The `RunRecorder`, which knows steps and seconds done.

    Raises:
        ValueError: if a loss or weights become NaN or infinite. The last
            checkpoint stays, and its model is written.
    """
    step = checkpoint.step if checkpoint else 0
    if checkpoint:
        checkpoints.restore(model, checkpoint)
        print(f"resumed {folder.checkpoint} at step {step}")
    recorder = callbacks.RunRecorder(
        folder.log,
        folder.checkpoint,
        fingerprint(config, corpus),
        config.save_every,
        step=step,
        seconds=checkpoint.seconds if checkpoint else 0.0,
    )
    extra = _optional_callbacks(config, folder)
    try:
        for epochs in plan_epochs(step, config.steps, config.steps_per_epoch):
            if not recorder.stopped:
                callback_list = [*extra, recorder]
                _fit(model, config, corpus, validation, epochs, callback_list)
    except checkpoints.NotFinite as error:
        raise ValueError(
            f"Training has stopped: {error}. "
            f"{_keep_last_good(model, config, corpus, folder)} Lower "
            "`learning_rate` or raise `warmup`, under another name. Received: "
            f"learning_rate={config.learning_rate}, warmup={config.warmup}"
        ) from error
    return recorder


def _keep_last_good(model, config, corpus, folder):
    """Writes the model of the last checkpoint; returns a sentence of it."""
    checkpoint = checkpoints.load_latest(
        folder.checkpoint, fingerprint(config, corpus)
    )
    if checkpoint is None:
        return "There was no checkpoint yet."
    checkpoints.restore(model, checkpoint)
    save_model(model, folder.model)
    return (
        f"Kept are the checkpoint of step {checkpoint.step} and its model, "
        f"{folder.model}."
    )


def save_model(model, path):
    """Writes a `.keras` file, atomically."""
    with replacing(path) as temporary:
        model.save(temporary)


class Epochs(NamedTuple):
    """Consecutive epochs of `steps` steps each, for one call of `fit`."""

    first: int
    last: int
    first_step: int
    steps: int


def plan_epochs(step, steps, steps_per_epoch):
    """Divides the steps that are left into calls of `fit`.

    Args:
        step: int. Steps done.
        steps: int. Steps in all.
        steps_per_epoch: int. Steps of a whole epoch.

    Returns:
        list of `Epochs`: the rest of an epoch begun, the whole ones, and a
        shorter one at the end, as far as there are such.
    """
    plan = []
    while step < steps:
        epoch, done = divmod(step, steps_per_epoch)
        left = steps - step
        whole = left // steps_per_epoch if not done else 0
        size = steps_per_epoch if whole else min(steps_per_epoch - done, left)
        last = epoch + max(whole, 1) - 1
        plan.append(Epochs(epoch, last, step, size))
        step += size * max(whole, 1)
    return plan


def _fit(model, config, corpus, validation, epochs, callback_list):
    windows = data.training_windows(
        corpus.train,
        config.length,
        config.batch_size,
        seed=config.seed,
        first_step=epochs.first_step,
    )
    model.fit(
        windows,
        initial_epoch=epochs.first,
        epochs=math.ceil(config.steps / config.steps_per_epoch),
        steps_per_epoch=epochs.steps,
        validation_data=validation,
        callbacks=[*callback_list, callbacks.EndAfterEpoch(epochs.last)],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def _optional_callbacks(config, folder):
    chosen = []
    if config.time_limit is not None:
        chosen.append(callbacks.TimeLimit(config.time_limit))
    if config.tensorboard:
        chosen.append(
            keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False)
        )
    return chosen


def fingerprint(config, corpus):
    """Returns what a run and the checkpoint it resumes must share."""
    return {**config.fingerprint(), "data": corpus.digest}
