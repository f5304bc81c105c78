"""`keras-reformer train`: from a corpus to a model that serves."""

import dataclasses
import hashlib
import os
from typing import NamedTuple

import numpy as np

from keras_reformer import data, export, visualize
from keras_reformer.commands import callbacks, checkpoints, report, training
from keras_reformer.commands.files import write_json, write_text
from keras_reformer.commands.run_folder import RunFolder

# Windows whose bits per byte are reported at the end, and whose bytes the
# yardsticks are computed on.
_REPORT_WINDOWS = 64
_PROOF_LENGTH = 512


class Corpus(NamedTuple):
    """A text in three parts, as uint8 arrays, and a digest of the whole."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    digest: str


def run(config):
    """Trains a model, shows what it can do, saves it and exports it.

    Args:
        config: A `TrainingConfig`.

    Returns:
        dict. What was written to the run's `metrics.json`.

    Raises:
        ValueError: if the corpus is too short or unreadable, an earlier run
            is in the way, a checkpoint is of another configuration, or the
            loss becomes NaN.
    """
    corpus = read_data(config)
    folder = RunFolder(os.path.join(config.output, config.name))
    model, progress = fit_model(config, corpus, folder)
    # Before anything is printed: nobody may be reading any more.
    training.save_model(model, folder.model)
    metrics = measure(model, config, corpus, progress)
    write_json(folder.metrics, metrics)
    show_metrics(metrics)
    show_sample(model, config, corpus, folder)
    draw_pictures(model, config, corpus, folder, metrics)
    print(f"model file: {folder.model}")
    metrics["export"] = export_and_prove(model, config, corpus)
    write_json(folder.metrics, metrics)
    print(f"metrics: {folder.metrics}")
    return metrics


def fit_model(config, corpus, folder):
    """Builds the model and trains it, from a checkpoint if there is one.

    Args:
        config: A `TrainingConfig`.
        corpus: A `Corpus`.
        folder: A `RunFolder`.

    Returns:
        The trained model, and the `RunRecorder` of its training.

    Raises:
        ValueError: as `run` does; then nothing has been written.
    """
    checkpoint = find_checkpoint(config, corpus, folder)
    validation = validation_windows(config, corpus, config.validation_windows)
    model = training.build_model(config)
    training.compile_model(model, config)
    prepare_folder(config, folder, checkpoint)
    progress = training.train(
        model, config, corpus, validation, folder, checkpoint
    )
    return model, progress


def read_data(config):
    """Reads the corpus and splits it by position.

    Args:
        config: A `TrainingConfig`.

    Returns:
        A `Corpus`.

    Raises:
        ValueError: if there is nothing to read or less than one window.
    """
    text = data.read_corpus(config.data)
    train_text, validation, test = data.split_by_position(text)
    print(
        f"corpus: {config.data}, {len(text):,} bytes; training on "
        f"{len(train_text):,}, validating on {len(validation):,}"
    )
    digest = hashlib.sha256(text.data).hexdigest()
    return Corpus(train_text, validation, test, digest)


def find_checkpoint(config, corpus, folder):
    """Looks for the checkpoint to resume from.

    Args:
        config: A `TrainingConfig`.
        corpus: A `Corpus`.
        folder: A `RunFolder`.

    Returns:
        A `Checkpoint`, or `None` for a run that starts at step 0.

    Raises:
        ValueError: if an earlier run is in the way or does not fit.
    """
    if not config.resume:
        if not config.overwrite:
            folder.check_free()
        return None
    checkpoint = checkpoints.load_latest(
        folder.checkpoint, training.fingerprint(config, corpus)
    )
    if checkpoint is None:
        print(f"no checkpoint in {folder.path}: starting at step 0")
    elif checkpoint.path != folder.checkpoint:
        print(
            f"{folder.checkpoint} is missing or damaged: taking the one before"
        )
    return checkpoint


def validation_windows(config, corpus, count):
    """Returns the first `count` windows of the validation text, in batches."""
    return data.evaluation_windows(
        corpus.validation,
        config.length,
        config.batch_size,
        max_windows=max(count, config.batch_size),
    )


def prepare_folder(config, folder, checkpoint):
    """Makes the run's folder and removes what is stale or damaged.

    Args:
        config: A `TrainingConfig`.
        folder: A `RunFolder`.
        checkpoint: A `Checkpoint` or `None`.
    """
    folder.create()
    if checkpoint is None and config.overwrite:
        folder.clear()
    if checkpoint is not None and checkpoint.path != folder.checkpoint:
        # A damaged file must not be kept as the one before the next.
        os.replace(checkpoint.path, folder.checkpoint)
    step = checkpoint.step if checkpoint else 0
    callbacks.truncate_log(folder.log, step)


def measure(model, config, corpus, progress):
    """Evaluates on validation text, beside yardsticks on the same bytes.

    Args:
        model: A trained `ReformerCausalLM`.
        config: A `TrainingConfig`.
        corpus: A `Corpus`.
        progress: The `RunRecorder` of the training.

    Returns:
        dict. The content of `metrics.json`.
    """
    windows = validation_windows(config, corpus, _REPORT_WINDOWS)
    # Every label is one byte; the first input byte is not predicted.
    count = len(windows) * config.batch_size * config.length
    text = corpus.validation[1 : count + 1]
    validation = report.evaluate(model, windows)
    references = report.yardsticks(text)
    return {
        "config": dataclasses.asdict(config),
        "corpus": {"digest": corpus.digest, "validation_bytes": len(text)},
        "parameters": model.count_params(),
        "steps": progress.step,
        "training_seconds": round(progress.seconds, 3),
        "validation": validation,
        "yardsticks": references,
        "versions": export.runtime_versions(),
    }


def show_metrics(metrics):
    """Prints bits per byte beside the yardsticks.

    Args:
        metrics: dict, as `measure` gives it.
    """
    validation = metrics["validation"]
    print(
        report.format_table(
            validation["bits_per_byte"],
            metrics["yardsticks"],
            validation["bits_per_byte_without_lsh"],
        )
    )


def show_sample(model, config, corpus, folder):
    """Writes generated text to the run's folder and prints it.

    Args:
        model: A trained `ReformerCausalLM`.
        config: A `TrainingConfig`.
        corpus: A `Corpus`.
        folder: A `RunFolder`.
    """
    prompt, continuation = report.generate_sample(
        model,
        corpus.validation,
        sample_length=config.sample_length,
        max_length=config.length,
        seed=config.seed,
    )
    write_text(folder.sample, prompt + continuation)
    print(f"--- prompt ---\n{prompt}\n--- generated ---\n{continuation}\n---")


def draw_pictures(model, config, corpus, folder, metrics):
    """Draws the training curve and the deepest LSH layer.

    Without matplotlib it says so and goes on: the training is not lost.

    Args:
        model: A trained `ReformerCausalLM`.
        config: A `TrainingConfig`.
        corpus: A `Corpus`.
        folder: A `RunFolder`.
        metrics: dict, as `measure` gives it.
    """
    rows = callbacks.read_log(folder.log)
    window = corpus.validation[: config.length]
    try:
        visualize.plot_training(
            rows, folder.training_picture, references=metrics["yardsticks"]
        )
        print(f"picture: {folder.training_picture}")
        if report.draw_lsh(model, window, folder.attention_picture):
            print(f"picture: {folder.attention_picture}")
    except ImportError as error:
        print(f"no pictures: {error}")


def export_and_prove(model, config, corpus):
    """Exports a SavedModel and compares it in a process with TensorFlow only.

    Args:
        model: A trained `ReformerCausalLM`.
        config: A `TrainingConfig`.
        corpus: A `Corpus`.

    Returns:
        dict: `path` and `max_abs_difference` of the logits.
    """
    path = export.export_saved_model(
        model,
        os.path.join(config.export, config.name),
        metadata={
            "tokenizer": "bytes",
            "byte_offset": int(data.ByteTokenizer().tokenize(b"\0")[0]),
        },
    )
    print(f"exported: {path}")
    length = min(config.length, _PROOF_LENGTH)
    ids = data.ByteTokenizer().tokenize(corpus.validation[:length].tobytes())
    difference = export.verify_saved_model(path, model, ids[None])
    print(
        "proved: a fresh Python process with tensorflow and without keras or "
        "keras_reformer loads it and gives the same logits (largest "
        f"difference {difference:.1e})"
    )
    return {"path": path, "max_abs_difference": difference}
