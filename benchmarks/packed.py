"""What packed documents cost: a row of many beside a row of one.

    python benchmarks/run.py packed [--length 16384] [--documents 16]

Forward and backward passes of single layers, and train steps of a language
model, on one row: all one document, and as many packed documents of equal
length. The two steps of a case take turns in one process, so that whatever
else the machine does hits both; the ratio is the median of each turn's.
Layers are those of `attention`, the model is that of `model`, under XLA.
"""

import contenders
import language_model
import measuring
import numpy as np
import reporting
import steps

KINDS = ("LSH layer", "LSH layer, chunks", "local layer", "model")
KEYS = ("kind",)
OPTIONS = {
    "kinds": list(KINDS),
    "length": 16384,
    "documents": 16,
    "depth": 2,
}
QUICK = {"kinds": ["LSH layer", "local layer"], "length": 256}
COLUMNS = {
    "": "{kind}",
    "s, one document": "{alone:.3f}",
    "s, packed": "{packed:.3f}",
    "packed / one": "{ratio:.2f}",
}


def cases(options):
    shape = {"length": [options.length], "documents": [options.documents]}
    return measuring.grid(kind=options.kinds, depth=[options.depth], **shape)


def work(case):
    segment_ids = np.arange(case["length"]) * case["documents"]
    segment_ids = (segment_ids // case["length"]).astype("int32")[None]
    make = model_step if case["kind"] == "model" else layer_step
    pair = make(case, None), make(case, segment_ids)
    for step in pair:
        step()
    turns = [
        [measuring.time_steps(step, 1)[0] for step in pair]
        for _ in range(case["repeats"])
    ]
    alone, packed = map(list, zip(*turns, strict=True))
    ratios = [b / a for a, b in turns]
    return {"alone": alone, "packed": packed, "ratio": ratios}


def layer_step(case, segment_ids):
    """Gradients of a layer of `attention`, of a row."""
    shape = 1, case["length"], contenders.WIDTH
    layer = make_layer(case["kind"], shape)
    return steps.layer(layer, shape, True, segment_ids=segment_ids)


def make_layer(kind, shape):
    import keras_reformer

    if kind == "local layer":
        layer = keras_reformer.LocalSelfAttention(
            contenders.HEADS, contenders.HEAD_SIZE, causal=True
        )
        layer.build(shape)
        return layer
    scope = "chunk" if kind == "LSH layer, chunks" else "bucket"
    return contenders.make_layer(shape, scope=scope)


def model_step(case, segment_ids):
    """A train step of the model of `model`."""
    import keras

    model = language_model.ours(case["depth"], case["length"])
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    x = {"token_ids": language_model.draw_tokens(case["length"])}
    if segment_ids is not None:
        x["segment_ids"] = segment_ids
    return lambda: model.train_on_batch(x)


def tables(records, options):
    shapes = measuring.split(records, ("length", "documents", "allocator"))
    for (length, documents, allocator), members in shapes.items():
        title = f"{length:,} tokens, {documents} documents or one, "
        summaries = measuring.group(members, ["kind"])
        rows = [{"kind": kind, **x} for (kind,), x in summaries.items()]
        yield (
            f"{title}{allocator} allocator",
            *reporting.rows(rows, COLUMNS),
        )
