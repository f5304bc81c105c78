"""`keras-reformer demo recall`: three kinds of attention look up values."""

import dataclasses
import math
import os
import sys
import time
from typing import cast

import keras
import numpy as np

from keras_reformer import data, export, visualize
from keras_reformer.commands import callbacks, report, training
from keras_reformer.commands.files import replacing, write_json
from keras_reformer.commands.run_folder import RunFolder
from keras_reformer.models import ReformerCausalLM

KINDS = {
    "lsh": "LSH attention (the library's defaults)",
    "exact": "exact attention in the LSH layer's place",
    "local": "local attention only",
}
LOG_FIELDS = ("attention", "step", "seconds", "loss", "accuracy")
# Seeds of batches are `(seed, stream, index)`, so that no sequence of
# training comes in a test.
_TRAINING, _TEST, _SHOWN = range(3)
# Most of a distance table's rows.
_BINS = 8


def run(config):
    """Trains the models, prints and draws what they can look up.

    Args:
        config: A `RecallConfig`.

    Returns:
        dict. What was written to the run's `metrics.json`.

    Raises:
        ValueError: if an earlier run is in the way, or a loss becomes NaN or
            infinite.
    """
    folder = RunFolder(os.path.join(config.output, config.name))
    if not config.overwrite:
        folder.check_free(can_resume=False)
    folder.create()
    folder.clear()
    models, seconds = {}, {}
    for number, (kind, title) in enumerate(KINDS.items(), start=1):
        print(f"\n{number} of {len(KINDS)}: {title}", flush=True)
        models[kind] = build_model(config, kind)
        seconds[kind] = round(train(models[kind], config, kind, folder), 3)
    metrics = {
        "config": dataclasses.asdict(config),
        "parameters": {k: model.count_params() for k, model in models.items()},
        "training_seconds": seconds,
        **measure(models, config),
        "versions": export.runtime_versions(),
    }
    write_json(folder.metrics, metrics)
    print(f"\n{format_table(metrics)}\n")
    draw(models["lsh"], config, metrics, folder)
    print(f"metrics: {folder.metrics}")
    return metrics


def build_model(config, kind):
    """Builds and compiles one of the models, from the same seed.

    Args:
        config: A `RecallConfig`.
        kind: str. One of `KINDS`.

    Returns:
        A compiled `ReformerCausalLM`.
    """
    keras.utils.set_random_seed(config.seed)
    model = ReformerCausalLM(
        # Token 0 comes on top of keys and values.
        vocabulary_size=config.vocabulary + 1,
        num_layers=config.layers,
        num_heads=config.heads,
        hidden_dim=config.hidden_dim,
        intermediate_dim=config.intermediate_dim,
        max_sequence_length=config.length,
        attention_layers=("local",) if kind == "local" else ("local", "lsh"),
        chunk_length=config.chunk_length,
        seed=config.seed,
    )
    if kind == "exact":
        for _, layer in report.lsh_layers(model):
            layer.exact_below = config.length
    model.compile(
        training.make_optimizer(config),
        metrics=["accuracy"],
        jit_compile=config.jit,
    )
    return model


def draw_batch(config, stream, index, batch_size):
    """Returns tokens, labels and weights, the same for each model."""
    return data.associative_recall_batch(
        np.random.default_rng((config.seed, stream, index)),
        batch_size,
        config.length,
        config.pairs,
        config.vocabulary,
    )


class TrainingBatches(keras.utils.PyDataset):
    """The batches of `steps` training steps from `first_step` on."""

    def __init__(self, config, first_step, steps):
        super().__init__()
        self.config = config
        self.first_step = first_step
        self.steps = steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        step = self.first_step + index
        return draw_batch(self.config, _TRAINING, step, self.config.batch_size)


def train(model, config, kind, folder):
    """Trains a compiled model, with a log row after every epoch.

    Every batch is fresh, so the accuracy shown is that on unseen sequences.

    Args:
        model: A compiled `ReformerCausalLM`.
        config: A `RecallConfig`.
        kind: str. One of `KINDS`.
        folder: A `RunFolder`.

    Returns:
        float. Seconds, compilation included.

    Raises:
        ValueError: if the loss becomes NaN or infinite.
    """
    started = time.monotonic()
    epochs = math.ceil(config.steps / config.steps_per_epoch)
    for epoch in range(epochs):
        first = epoch * config.steps_per_epoch
        steps = min(config.steps_per_epoch, config.steps - first)
        history = model.fit(
            TrainingBatches(config, first, steps),
            initial_epoch=epoch,
            epochs=epochs,
            shuffle=False,
            callbacks=[callbacks.EndAfterEpoch(epoch)],
            verbose=1 if sys.stdout.isatty() else 2,
        ).history
        row = {name: values[0] for name, values in history.items()}
        row["seconds"] = round(time.monotonic() - started, 3)
        _log(folder, {"attention": kind, "step": first + steps, **row})
    return time.monotonic() - started


def _log(folder, row):
    if not math.isfinite(row["loss"]):
        raise ValueError(
            "Training has stopped: the loss is not finite. Choose another "
            f"--seed. Received: loss={row['loss']} after step {row['step']}"
        )
    callbacks.append_log(folder.log, row, LOG_FIELDS)


def measure(models, config):
    """Accuracy on fresh sequences, over all and by distance.

    Args:
        models: dict of str to `ReformerCausalLM`.
        config: A `RecallConfig`.

    Returns:
        dict: `queries`, their number; `guessing`, the accuracies of guesses
        by what is guessed; `accuracy`, by kind; and `by_distance`, a list of
        dicts with the `first` and the `last` distance of a bin, its number of
        `queries` and its `accuracy` by kind.
    """
    batch = draw_batch(config, _TEST, 0, config.test_sequences)
    correct = {
        kind: answers(model, batch, config.batch_size)
        for kind, model in models.items()
    }
    distances = np.concatenate(
        [queries - values for queries, values in map(find_values, *batch[::2])]
    )
    return {
        "queries": len(distances),
        "guessing": {
            "any value": 2 / config.vocabulary,
            "one of the sequence's values": _chance_of_pairs(config),
        },
        "accuracy": _means(correct),
        "by_distance": [
            {
                "first": first,
                "last": last,
                "queries": int(inside.sum()),
                "accuracy": _means(correct, inside),
            }
            for first, last in distance_bins(config)
            if (inside := (distances >= first) & (distances <= last)).any()
        ],
    }


def _chance_of_pairs(config):
    # Another pair may have the same value.
    right, same = 1 / config.pairs, 2 / config.vocabulary
    return right + (1 - right) * same


def _means(correct, chosen=...):
    return {kind: float(hits[chosen].mean()) for kind, hits in correct.items()}


def answers(model, batch, batch_size):
    """Returns which queries a model answers correctly, in reading order."""
    tokens, labels, weights = batch
    logits = model.predict(tokens, batch_size=batch_size, verbose=0)
    return (logits.argmax(axis=-1) == labels)[weights > 0]


def find_values(tokens, weights):
    """Finds the queries of one sequence and the values they ask for.

    Args:
        tokens: int array of shape `(length,)`.
        weights: float array of the same shape, 1 at queries.

    Returns:
        Two int arrays: positions of the queries in order, and of the value
        that each asks for.
    """
    queries = np.flatnonzero(weights)
    # A key stands first where its pair is.
    keys = [np.flatnonzero(tokens == tokens[query])[0] for query in queries]
    return queries, np.asarray(keys) + 1


def distance_bins(config):
    """Returns the first and the last distance of each bin."""
    greatest = config.length - 2
    width = math.ceil(greatest / _BINS)
    return [
        (first, min(first + width - 1, greatest))
        for first in range(1, greatest + 1, width)
    ]


def format_table(metrics):
    """Formats accuracies, a column a kind and a row a bin of distances.

    Args:
        metrics: dict, as `measure` gives it.

    Returns:
        str. A table of several lines.
    """
    by_distance = metrics["by_distance"]
    rows = [
        (f"value {row['first']} to {row['last']} tokens back", row["accuracy"])
        for row in by_distance
    ]
    rows.append((f"all {metrics['queries']:,} queries", metrics["accuracy"]))
    heads = "".join(f"{kind:>9}" for kind in KINDS)
    lines = [f"{'accuracy on fresh sequences':<32}{heads}"]
    for name, accuracy in rows:
        cells = "".join(f"{100 * accuracy[k]:7.1f} %" for k in KINDS)
        lines.append(f"{name:<32}{cells}")
    for name, chance in metrics["guessing"].items():
        lines.append(f"{f'guessing {name}':<38}{100 * chance:5.1f} %")
    return "\n".join(lines)


def draw(model, config, metrics, folder):
    """Draws accuracy by distance, and what queries of a sequence look at.

    Without matplotlib it says so and goes on: the training is not lost.

    Args:
        model: The `ReformerCausalLM` with LSH attention.
        config: A `RecallConfig`.
        metrics: dict, as `measure` gives it.
        folder: A `RunFolder`.
    """
    tokens, _, weights = draw_batch(config, _SHOWN, 0, 1)
    queries, values = find_values(tokens[0], weights[0])
    # The model has an LSH layer, so there are some.
    _, _, statistics = cast(
        tuple, report.lsh_statistics(model, tokens, queries.tolist())
    )
    try:
        with replacing(folder.recall_picture) as temporary:
            visualize.plot_recall(
                metrics,
                statistics["weights"],
                temporary,
                tokens=tokens[0],
                queries=queries,
                values=values,
                reach=2 * config.chunk_length - 1,
            )
        print(f"picture: {folder.recall_picture}")
    except ImportError as error:
        print(f"no picture: {error}")
