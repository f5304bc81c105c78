"""Vectors of the published model, where they are at hand."""

import json
import pathlib
from typing import NamedTuple

import numpy as np

# Beside the project's root, never inside it.
FOLDER = pathlib.Path(__file__).parents[2].parent / "shared" / "goldens"
NAMES = (
    "lm_local_causal",
    "lm_lsh_causal",
    "lm_mixed_factorised",
    "lm_short_exact",
    "mlm_lsh_masked",
)


class Golden(NamedTuple):
    """One case: what the published model was given, and what came of it."""

    config: dict
    weights: dict
    rotations: dict
    gradients: dict
    arrays: dict


def load(name):
    """Reads a case."""
    with np.load(FOLDER / f"{name}.npz") as file:
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
