"""Trains the small model that lies in `saved_models/shakespeare`.

    python examples/shakespeare.py [--data tfds:tiny_shakespeare]

A byte-level language model of Shakespeare's plays, small enough for a
repository and good enough to show generation and serving without training
first. It is trained, measured and exported by `keras-reformer train`; beside
the export goes a model card with what that run measured.
"""

import argparse
import json
import os
import textwrap

from keras_reformer.commands import train
from keras_reformer.commands.config import TrainingConfig

NAME = "shakespeare"
CARD = """\
# {name}

A byte-level Reformer language model of {blocks} blocks, width {width},
{parameters:,} parameters, trained by `examples/{name}.py`.

| what | value |
|---|---|
| data | tiny Shakespeare (Karpathy), 1.1 MB of plays, public domain |
| steps | {steps}, each of {tokens:,} bytes in windows of {length:,} |
| training | {seconds:.0f} s on a CPU |
| bits per byte, validation | {bits:.3f} |
| the same with LSH layers' outputs zeroed | {ablated:.3f} |
| order-0 entropy of the same bytes | {order0:.3f} |
| bigram table | {bigram:.3f} |
| zlib -9 | {zlib:.3f} |
| tokens | bytes, number + {offset}; 0 is padding |
| licence | Apache-2.0 |

{use}
"""
USE = """\
Made to try things with: it writes words and verse, not sense. `1/` is a
SavedModel in TensorFlow Serving's layout, and `1/metadata.json` has its
configuration, signatures and versions.
"""


def make_card(config, metrics, offset):
    """The model card, from what the run wrote to `metrics.json`."""
    validation, yardsticks = metrics["validation"], metrics["yardsticks"]
    return CARD.format(
        name=NAME,
        blocks=config.layers,
        width=config.hidden_dim,
        parameters=metrics["parameters"],
        steps=metrics["steps"],
        tokens=config.batch_size * config.length,
        length=config.length,
        seconds=metrics["training_seconds"],
        bits=validation["bits_per_byte"],
        ablated=validation["bits_per_byte_without_lsh"],
        offset=offset,
        use=textwrap.dedent(USE).strip(),
        **yardsticks,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="tfds:tiny_shakespeare")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", default="runs")
    parser.add_argument("--export", default="saved_models")
    options = parser.parse_args()
    config = TrainingConfig(
        **vars(options),
        name=NAME,
        length=1024,
        batch_size=4,
        layers=2,
        heads=3,
        hidden_dim=96,
        intermediate_dim=256,
        chunk_length=32,
        dropout=0.1,
        learning_rate=4e-3,
        steps_per_epoch=min(250, options.steps),
        warmup=min(100, options.steps // 2),
        overwrite=not options.resume,
    )
    metrics = train.run(config)
    path = metrics["export"]["path"]
    with open(os.path.join(path, "metadata.json")) as file:
        offset = json.load(file)["byte_offset"]
    card = os.path.join(os.path.dirname(path), "README.md")
    with open(card, "w") as file:
        file.write(make_card(config, metrics, offset))
    print(f"model card: {card}")


if __name__ == "__main__":
    main()
