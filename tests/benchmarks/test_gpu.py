"""What `benchmarks/gpu.py` writes runs where jax is, if on a CPU."""

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("jax")
pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def test_programs_are_written_counted_and_run(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, SCRIPT, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(ROOT),
            },
        ).stdout

    run("--export", tmp_path, "--quick")
    counted = run("--count", tmp_path)
    assert "train step, 2 blocks, 256, bfloat16" in counted
    measured = run("--measure", tmp_path, "--repeats", "1", "--peers")
    assert "layer, forward+backward, 256, float32" in measured
