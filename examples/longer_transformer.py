"""Makes an existing Keras Transformer longer, and keeps its weights.

    python examples/longer_transformer.py [--steps 300]

A Transformer of `keras.layers.MultiHeadAttention` is trained on 256 bytes at a
time. `clone_model` copies it with local and LSH attention in the place of exact
attention, whose memory is linear in the length, and it goes on with 4,096.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure

import keras_reformer
from keras_reformer import convert, data

SHORT, HEADS, KEY_DIM, WIDTH = 256, 2, 32, 64
VOCABULARY = data.ByteTokenizer.vocabulary_size


def make_transformer():
    """A Transformer as people have it; a convolution tells it the order."""
    token_ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, WIDTH)(token_ids)
    x = keras.layers.Conv1D(WIDTH, 4, padding="causal")(x)
    for number in range(2):
        name = f"attention_{number}"
        attention = keras.layers.MultiHeadAttention(HEADS, KEY_DIM, name=name)
        y = keras.layers.LayerNormalization()(x)
        x = x + attention(y, y, use_causal_mask=True)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(2 * WIDTH, activation="gelu")(y)
        x = x + keras.layers.Dense(WIDTH)(y)
    x = keras.layers.LayerNormalization()(x)
    logits = keras.layers.Dense(VOCABULARY)(x)
    return keras.Model(token_ids, logits)


def make_longer(model, length):
    """The same model with attention whose cost is linear in the length."""

    def clone_layer(layer):
        if not isinstance(layer, keras.layers.MultiHeadAttention):
            return layer.__class__.from_config(layer.get_config())
        options = {"causal": True, "use_bias": True, "name": layer.name}
        sizes = {"num_heads": HEADS, "key_dim": KEY_DIM}
        if layer.name == "attention_0":
            return keras_reformer.LocalSelfAttention(
                **sizes, **options, num_chunks_before=3
            )
        return keras_reformer.LSHSelfAttention(
            **sizes, **options, num_buckets=length // 64
        )

    def call_layer(layer, *args, **kwargs):
        # Self-attention takes its input once, and knows that it is causal.
        if layer.name.startswith("attention_"):
            return layer(args[0])
        return layer(*args, **kwargs)

    longer = keras.models.clone_model(
        model, clone_function=clone_layer, call_function=call_layer
    )
    for layer, clone in zip(model.layers, longer.layers, strict=True):
        if isinstance(layer, keras.layers.MultiHeadAttention):
            convert.from_multi_head_attention(layer, clone)
        else:
            clone.set_weights(layer.get_weights())
    return longer


def train(model, corpus, length, steps, rate):
    """Bits per byte on held-out text before training and in its course."""
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras_reformer.BitsPerByte()],
    )
    held_out = data.evaluation_windows(
        corpus.validation, length, 1, max_windows=2**16 // length
    )
    found = [model.evaluate(held_out, return_dict=True)["bits_per_byte"]]
    batches = data.training_windows(
        corpus.train, length, 8192 // length, seed=0
    )
    lengths = {"steps_per_epoch": max(steps // 5, 1), "epochs": 5}
    history = model.fit(
        batches, shuffle=False, validation_data=held_out, **lengths
    )
    return found + history.history["val_bits_per_byte"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--picture", default="longer.png")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    corpus = data.split_by_position(data.read_corpus("python"))
    model = make_transformer()
    axis = Figure(figsize=(6, 4), layout="constrained").subplots()
    first = 0
    for length, rate in ((SHORT, 4e-3), (options.length, 1e-3)):
        if first:
            model = make_longer(model, length)
        bits = train(model, corpus, length, options.steps, rate)
        places = first + np.linspace(0, options.steps, len(bits))
        axis.plot(places, bits, "o-", label=f"{length:,} bytes, {bits[-1]:.2f}")
        first += options.steps
    axis.set(xlabel="steps of 8,192 bytes", ylabel="bits per byte, held out")
    axis.legend(frameon=False, title="trained on")
    axis.figure.savefig(options.picture, dpi=130)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
