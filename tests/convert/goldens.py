"""Vectors of the published model, where they are at hand."""

import json
import pathlib
from typing import NamedTuple

import numpy as np

FOLDER = pathlib.Path(__file__).parents[2].parent / "shared" / "goldens"


class Golden(NamedTuple):
    """One case: what the published model was given, and what came of it."""

    config: dict
    weights: dict
    rotations: dict
    gradients: dict
    arrays: dict


def paths():
    """All cases' files."""
    return sorted(FOLDER.glob("*.npz"))


def load(path):
    """Reads a case."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}

    def part(prefix):
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    rotations = part("rotations/")
    return Golden(
        json.loads(str(arrays["config"])),
        part("weights/"),
        {int(name.split("/")[0]): x for name, x in rotations.items()},
        part("grads/"),
        arrays,
    )
