"""The settings of a training run, checked before anything heavy is loaded."""

import dataclasses
import re

ATTENTION_TYPES = ("local", "lsh")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

_POSITIVE_INTEGERS = (
    "length",
    "batch_size",
    "layers",
    "heads",
    "hidden_dim",
    "intermediate_dim",
    "chunk_length",
    "num_hashes",
    "steps",
    "steps_per_epoch",
    "validation_windows",
    "sample_length",
)
_OPTIONAL_POSITIVE = ("num_buckets", "save_every", "time_limit")
# Settings that can change between a run and its resumption, because no
# weight depends on them. `data` is compared by content instead of by name.
_FREE_WHEN_RESUMING = frozenset(
    {
        "data",
        "name",
        "output",
        "export",
        "save_every",
        "time_limit",
        "tensorboard",
        "resume",
        "overwrite",
        "validation_windows",
        "sample_length",
    }
)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything `keras-reformer train` can be told.

    Args:
        data: str. `"python"` (the running Python's standard library), a file,
            a folder, a glob or `"tfds:NAME"` (tensorflow-datasets).
        name: str. Names the run's folder and the exported model.
        length: int. Bytes in a training window.
        batch_size: int. Windows in a step.
        layers: int. Reversible blocks.
        heads: int. Attention heads; must divide `hidden_dim`.
        hidden_dim: int. Width of a residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        attention: tuple of str. Attention types, cycled over the layers.
        chunk_length: int. Attention window in positions (sorted ones, for
            LSH attention).
        num_hashes: int. LSH rounds.
        num_buckets: int or `None`. LSH buckets; `None` follows the length.
        dropout: float. Dropout rate of the blocks.
        learning_rate: float. The peak, after `warmup` and before the decay.
        warmup: int. Steps of linear warmup.
        steps: int. Training steps in all.
        steps_per_epoch: int. Steps between two validations and log rows.
        save_every: int or `None`. Steps between checkpoints inside an epoch;
            there always is one at its end.
        validation_windows: int. Windows evaluated at the end of an epoch.
        precision: str. One of `PRECISIONS`.
        jit: bool. Whether to compile the training step with XLA.
        seed: int. Seed of weights, dropout, hashing and the order of data.
        time_limit: float or `None`. Seconds of training after which it stops
            early, with a checkpoint that `resume` goes on from.
        sample_length: int. Bytes of text to generate at the end.
        tensorboard: bool. Whether to write TensorBoard logs too.
        resume: bool. Whether to go on from the last checkpoint.
        overwrite: bool. Whether to replace an earlier run of this name.
        output: str. Folder that holds the runs' folders.
        export: str. Folder that holds the exported models' folders.

    Raises:
        ValueError: if a setting is out of range or two do not fit together.
    """

    data: str = "python"
    name: str = "demo"
    length: int = 4096
    batch_size: int = 1
    layers: int = 4
    heads: int = 3
    hidden_dim: int = 96
    intermediate_dim: int = 384
    attention: tuple[str, ...] = ("local", "lsh")
    chunk_length: int = 64
    num_hashes: int = 2
    num_buckets: int | None = None
    dropout: float = 0.0
    learning_rate: float = 5e-3
    warmup: int = 100
    steps: int = 1200
    steps_per_epoch: int = 200
    save_every: int | None = None
    validation_windows: int = 8
    precision: str = "float32"
    jit: bool = True
    seed: int = 0
    time_limit: float | None = None
    sample_length: int = 256
    tensorboard: bool = False
    resume: bool = False
    overwrite: bool = False
    output: str = "runs"
    export: str = "saved_models"

    def __post_init__(self):
        for name in _POSITIVE_INTEGERS:
            _check_positive(name, getattr(self, name))
        for name in _OPTIONAL_POSITIVE:
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        _check_names(self)
        _check_model(self)
        _check_optimization(self)

    def fingerprint(self):
        """Returns the settings that a checkpoint must share to be resumed."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if name not in _FREE_WHEN_RESUMING
        }


@dataclasses.dataclass(frozen=True)
class RecallConfig:
    """What `keras-reformer demo recall` trains.

    Args:
        name: str. Names the run's folder.
        steps: int. Training steps of each model.
        seed: int. Seed of weights, hashing and data.
        overwrite: bool. Whether to replace an earlier run of this name.
        output: str. Folder that holds the runs' folders.
        length: int. Tokens of a sequence.
        pairs: int. Pairs of a key and a value in a sequence.
        vocabulary: int. Number of keys and values.
        batch_size: int. Sequences in a step.
        layers: int. Reversible blocks.
        heads: int. Attention heads.
        hidden_dim: int. Width of a residual stream.
        intermediate_dim: int. Width inside the feed-forward layers.
        chunk_length: int. Attention window in positions.
        learning_rate: float. The peak, after 5 % of the steps.
        steps_per_epoch: int. Steps between two log rows.
        test_sequences: int. Fresh sequences to measure accuracy on.
        jit: bool. Whether to compile training steps with XLA.

    Raises:
        ValueError: if steps, seed or name are out of range.
    """

    name: str = "recall"
    steps: int = 600
    seed: int = 0
    overwrite: bool = False
    output: str = "runs"
    length: int = 64
    pairs: int = 6
    vocabulary: int = 64
    batch_size: int = 32
    layers: int = 2
    heads: int = 2
    hidden_dim: int = 64
    intermediate_dim: int = 128
    chunk_length: int = 16
    learning_rate: float = 6e-3
    steps_per_epoch: int = 100
    test_sequences: int = 2048
    jit: bool = True

    def __post_init__(self):
        _check_name(self.name)
        _check_positive("steps", self.steps)
        _check_seed(self.seed)

    @property
    def warmup(self):
        return self.steps // 20


def _check_positive(name, value):
    if not value > 0:
        raise ValueError(
            f"`{name}` must be greater than 0. Received: {name}={value}"
        )


def _check_name(name):
    # The name becomes a folder; nothing may be written beside it.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            "`name` must start with a letter or digit and hold only letters, "
            f"digits, dots, dashes and underscores. Received: name={name!r}"
        )


def _check_names(config):
    _check_name(config.name)
    try:
        config.export.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            "`export` must be a name in UTF-8: TensorFlow writes models to no "
            f"other. Received: export={config.export!r}"
        ) from error
    if config.resume and config.overwrite:
        raise ValueError(
            "`resume` goes on with an earlier run and `overwrite` replaces "
            "it: give one of them. Received: resume=True, overwrite=True"
        )


def _check_model(config):
    unknown = [t for t in config.attention if t not in ATTENTION_TYPES]
    if unknown or not config.attention:
        raise ValueError(
            f"`attention` must list some of {ATTENTION_TYPES}. "
            f"Received: attention={tuple(config.attention)}"
        )
    if config.hidden_dim % config.heads:
        raise ValueError(
            "`heads` must divide `hidden_dim`. Received: "
            f"heads={config.heads}, hidden_dim={config.hidden_dim}"
        )
    if config.num_buckets is not None and config.num_buckets % 2:
        raise ValueError(
            "`num_buckets` must be even. "
            f"Received: num_buckets={config.num_buckets}"
        )
    if config.precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {PRECISIONS}. "
            f"Received: precision={config.precision!r}"
        )


def _check_optimization(config):
    if not 0 <= config.dropout < 1:
        raise ValueError(
            "`dropout` must be at least 0 and below 1. "
            f"Received: dropout={config.dropout}"
        )
    if not 0 < config.learning_rate < float("inf"):
        raise ValueError(
            "`learning_rate` must be a number greater than 0. "
            f"Received: learning_rate={config.learning_rate}"
        )
    if not 0 <= config.warmup < config.steps:
        raise ValueError(
            "`warmup` must be at least 0 and less than `steps`. "
            f"Received: warmup={config.warmup}, steps={config.steps}"
        )
    _check_seed(config.seed)


def _check_seed(seed):
    if not 0 <= seed < 2**31:
        raise ValueError(
            f"`seed` must be at least 0 and below 2**31. Received: seed={seed}"
        )
