"""A run of the command that takes seconds."""

import argparse
from pathlib import Path

from keras_reformer.commands.config import TrainingConfig

SETTINGS = {
    "name": "tiny",
    "length": 64,
    "batch_size": 2,
    "layers": 1,
    "heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "attention": ("lsh",),
    "chunk_length": 16,
    "num_hashes": 1,
    "dropout": 0.1,
    "learning_rate": 1e-2,
    "warmup": 2,
    "steps": 12,
    "steps_per_epoch": 5,
    "save_every": 3,
    "sample_length": 8,
    "validation_windows": 4,
    "jit": False,
}


def write_corpus(folder):
    """Writes real source text, no line of it ASCII, and returns its path."""
    path = Path(folder, "corpus.txt")
    lines = Path(argparse.__file__).read_text(encoding="utf-8").splitlines()
    path.write_bytes(
        "".join(f"{line} ü你\n" for line in lines).encode()[:40_000]
    )
    return str(path)


def make_config(folder, **settings):
    """Returns a configuration that reads and writes in `folder` only."""
    paths = {
        "data": str(Path(folder, "corpus.txt")),
        "output": str(Path(folder, "runs")),
        "export": str(Path(folder, "saved_models")),
    }
    return TrainingConfig(**{**SETTINGS, **paths, **settings})


def to_arguments(config):
    """Returns the command line of a configuration."""
    arguments = ["train"]
    for name, value in vars(config).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no-'}{flag}")
        elif isinstance(value, tuple):
            arguments += [f"--{flag}", ",".join(value)]
        elif value is not None:
            arguments += [f"--{flag}", str(value)]
    return arguments
