"""What int8 and int4 change in an encoder-decoder with hashes.

    python benchmarks/quantization.py [--modes int8 int4] [--quick]

A `ReformerSeq2Seq` of two blocks on each side, one of them with LSH
attention, learns to reverse random strings and is quantized. A token that
rounding moves to another bucket attends to other tokens, and its logits may
move far. The table has the changes of logits under teacher forcing, and the
symbols of greedy generation that are right, and that stay as they were.
"""

import argparse

import keras
import measuring
import numpy as np
import reporting

import keras_reformer

SYMBOLS, START = 26, 0


def make_model(length):
    return keras_reformer.ReformerSeq2Seq(
        vocabulary_size=1 + SYMBOLS,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=length + 1,
        chunk_length=32,
        num_hashes=2,
        position_embedding="sinusoidal",
        merge="mean",
        seed=0,
    )


def draw(rng, count, length):
    """Inputs of random strings, and the strings reversed."""
    source = rng.integers(1, SYMBOLS + 1, (count, length), dtype="int32")
    target = source[:, ::-1]
    begun = np.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    return {"encoder_token_ids": source, "decoder_token_ids": begun}, target


def train(options):
    keras.utils.set_random_seed(0)
    model = make_model(options.length)
    model.compile(keras.optimizers.Adam(2e-3, global_clipnorm=1.0))
    rng = np.random.default_rng(0)
    inputs, target = draw(rng, 32 * options.steps, options.length)
    model.fit(inputs, target, batch_size=32, verbose=2)
    return model


def answers(model, inputs):
    """Logits, and the symbols of greedy generation."""
    starts = np.full((len(inputs["decoder_token_ids"]), 1), START)
    request = {**inputs, "decoder_token_ids": starts}
    length = 1 + inputs["encoder_token_ids"].shape[1]
    texts = model.generate(request, length, "greedy", verbose=0)
    return model.predict(inputs, verbose=0), np.array(texts)[:, 1:]


def row(mode, found, before, target):
    (logits, text), (old, old_text) = found, before
    moved = np.abs(logits - old)
    return [
        mode,
        f"{moved.mean():.3f}",
        f"{moved.max():.1f}",
        f"{(moved.max(axis=-1) > 1).mean():.1%}",
        f"{(text == target).mean():.1%}",
        f"{(text == old_text).mean():.1%}",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", default=["int8", "int4"])
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="a moment alone")
    options = parser.parse_args()
    if options.quick:
        options.length, options.steps, options.modes = 8, 2, ["int8"]
    model = train(options)
    inputs, target = draw(np.random.default_rng(1), 64, options.length)
    before = answers(model, inputs)
    rows = [row("none", before, before, target)]
    weights = model.get_weights()
    for mode in options.modes:
        copy = type(model).from_config(model.get_config())
        copy.set_weights(weights)
        copy.quantize(mode)
        rows.append(row(mode, answers(copy, inputs), before, target))
    header = ["quantized", "logits: mean change", "greatest"]
    header += ["positions above 1", "right symbols", "as before"]
    print(measuring.describe_machine())
    reporting.report([("Reversed strings", header, rows)], None)


if __name__ == "__main__":
    main()
