"""Memory that XLA plans for compiled steps, from its dump."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent


def temporaries(folder, code, depths, arguments=()):
    """Bytes that XLA plans for intermediate values, for each depth.

    Args:
        folder: path of an empty folder.
        code: Python that takes `arguments` and depths from its command line,
            and compiles a function `step_of_{depth}_blocks` for each.
        depths: list of ints.
        arguments: what comes before the depths.
    """
    subprocess.run(
        [sys.executable, "-c", code, *map(str, (*arguments, *depths))],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": f"--xla_dump_to={folder}"},
        check=True,
    )
    return [
        sum(
            int(size)
            for file in folder.glob(f"*step_of_{depth}_blocks*buffer-assig*")
            for size in re.findall(
                r"^allocation \d+: size (\d+), preallocated-temp",
                file.read_text(),
                re.MULTILINE,
            )
        )
        for depth in depths
    ]
