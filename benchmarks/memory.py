"""Peak memory of a training step against depth.

    python benchmarks/memory.py [--length 16384] [--depths 2 8]

Every case runs in a process of its own, without XLA (Keras's choice on a CPU),
with dropout 0.1. Prints by how much the process's peak grows when the length
goes from a quarter to the whole: tracing, weights and the optimizer, which do
not depend on the length, cancel out. Saves `docs/memory.png`.
"""

import argparse
import pathlib
import platform
import resource
import subprocess
import sys

WIDTH = 256
PICTURE = pathlib.Path(__file__).parent.parent / "docs" / "memory.png"


def measure(depth, length, recompute):
    """Runs two steps; returns the process's peak in MiB."""
    import keras
    import numpy as np

    import keras_reformer

    model = keras_reformer.ReformerCausalLM(
        vocabulary_size=258,
        num_layers=depth,
        num_heads=4,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        max_sequence_length=length,
        num_hashes=2,
        dropout=0.1,
        recompute=recompute,
        seed=0,
    )
    model.compile(keras.optimizers.Adam())
    tokens = np.random.default_rng(0).integers(258, size=(1, length))
    for _ in range(2):
        model.train_on_batch(tokens, tokens)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure_elsewhere(depth, length, recompute):
    """`measure` in a fresh process."""
    arguments = [str(depth), str(length), str(int(recompute))]
    process = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    return float(process.stdout.splitlines()[-1])


def plot(depths, rows):
    """Draws both curves."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in rows.items():
        axes.plot(depths, values, marker="o", label=name)
    axes.set(
        xlabel="blocks",
        ylabel="growth of the peak with the length (MiB)",
        title="Memory of a training step against depth",
        xticks=depths,
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        depth, length, recompute = map(int, options.measure)
        print(measure(depth, length, bool(recompute)))
        return
    rows = {}
    print(f"{platform.machine()}, length {options.length}, width {WIDTH}")
    for name, recompute in (("reversible", True), ("plain", False)):
        rows[name] = []
        for depth in options.depths:
            whole, quarter = (
                measure_elsewhere(depth, length, recompute)
                for length in (options.length, options.length // 4)
            )
            rows[name].append(whole - quarter)
            print(
                f"{name:<12}{depth:>3} blocks: {whole - quarter:6.0f} MiB "
                f"({whole:.0f} less {quarter:.0f})",
                flush=True,
            )
    plot(options.depths, rows)
    print(f"picture: {PICTURE}")


if __name__ == "__main__":
    main()
