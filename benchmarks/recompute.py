"""Memory of Keras's attention layers, with and without `Recompute`.

    python benchmarks/run.py recompute [--layers 2 6] [--length 1024]

A step is the forward and backward pass of residual layers
`x + MultiHeadAttention(...)(x, x)` of Keras's, with dropout 0.1 of attention
weights. Prints what a step needs beyond what is there before the first, as
`memory` measures it, and the median time of a step.
"""

import keras
import measuring
import steps

import keras_reformer

HEADS, KEY_DIM, WIDTH = 4, 32, 128
KEYS = ("xla", "recompute", "layers", "length")
DEFAULTS = {"allocators": ["default"], "repeats": 3}
OPTIONS = {"layers": [2, 6], "length": 1024, "xla": [0, 1]}
QUICK = {"layers": [1], "length": 64, "xla": [1]}


def cases(options):
    return measuring.grid(
        xla=list(map(bool, options.xla)),
        recompute=[False, True],
        layers=options.layers,
        length=[options.length],
    )


def work(case):
    inputs = keras.Input((case["length"], WIDTH), batch_size=1)
    x = inputs
    for seed in range(case["layers"]):
        layer = keras.layers.MultiHeadAttention(
            HEADS, KEY_DIM, dropout=0.1, seed=seed
        )
        if case["recompute"]:
            layer = keras_reformer.Recompute(layer)
        x = x + layer(x, x)
    step = steps.layer(keras.Model(inputs, x), inputs.shape, case["xla"])
    return measuring.measure(step, case["repeats"], needs=True)


def tables(records, options):
    rows = [
        [
            "XLA" if xla else "no XLA",
            "`Recompute`" if recompute else "plain",
            layers,
            f"{found['needs']:.0f}",
            f"{found['seconds']:.2f}",
        ]
        for (xla, recompute, layers, _), found in measuring.group(
            records, KEYS
        ).items()
    ]
    header = ("compiled with", "layers are", "layers", "a step needs, MiB")
    title = f"Keras's attention, {records[0]['length']:,} tokens"
    yield title, (*header, "seconds"), rows
