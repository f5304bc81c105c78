"""Classifies movie reviews of 4,096 bytes, with LSH or exact attention.

    python examples/classify_reviews.py [--attention lsh exact]

Reads `pos/NAME.txt` and `neg/NAME.txt` in a folder or zip file, such as Pang
and Lee's polarity data set 2.0; names decide which reviews are held out. A byte
says little: embeddings of n-grams that end at a position are added to its own.
"""

import argparse
import pathlib

import keras
from keras import ops
from matplotlib.figure import Figure

import keras_reformer
from keras_reformer import data

REVIEWS = pathlib.Path(__file__).parents[2] / "shared/data/movie_reviews.zip"
SPLITS, PRIME = ("train", "validation", "test"), 2**31 - 1
# Tables' rows are seen rarely, and learn `RATE` times as fast as the rest.
WIDTH, SIZES, ROWS, RATE = 64, (3, 4, 5, 6), 2**16, 5.0


class NgramEmbedding(keras.layers.Layer):
    """Embeddings of the n-grams that end at each byte, from hashed tables."""

    def __init__(self):
        super().__init__()
        small = keras.initializers.RandomNormal(stddev=0.02 / RATE)
        self.table = keras.layers.Embedding(len(SIZES) * ROWS, 32, small)
        self.dropout = keras_reformer.Dropout(0.3)
        self.dense = keras.layers.Dense(WIDTH)

    def call(self, token_ids, training=None):
        shifted, rows = ops.cast(token_ids, "int64"), []
        value = ops.zeros_like(shifted)
        for size in range(1, max(SIZES) + 1):
            value = (value * 259 + shifted + 1) % PRIME
            if size in SIZES:
                rows.append(value * 48271 % PRIME % ROWS + len(rows) * ROWS)
            shifted = ops.pad(shifted[:, :-1], [[0, 0], [1, 0]])
        found = self.table(ops.cast(ops.stack(rows, -1), "int32"))
        x = ops.reshape(found, (-1, token_ids.shape[1], 32 * len(SIZES)))
        return self.dense(self.dropout(RATE * x, training=training))


def make_model(length, attention):
    """Two blocks over n-grams and bytes, the mean of states, two logits."""
    backbone = keras_reformer.ReformerBackbone(
        vocabulary_size=data.ByteTokenizer.vocabulary_size,
        num_layers=2,
        num_heads=2,
        hidden_dim=WIDTH,
        intermediate_dim=2 * WIDTH,
        max_sequence_length=length,
        local_chunk_length=32,
        position_embedding="rotary",
        causal=False,
    )
    if attention == "exact":
        backbone.lsh_layers()[1].exact_below = length  # What LSH approximates.
    ids = keras.Input((length,), dtype="int32", name="token_ids")
    mask = keras.Input((length,), dtype="bool", name="padding_mask")
    x = NgramEmbedding()(ids) + 0.05 * backbone.token_embedding(ids)
    x = backbone({"token_embeddings": x, "padding_mask": mask})
    x = keras.layers.GlobalAveragePooling1D()(x, mask=mask)
    x = keras.layers.Dropout(0.3)(x)
    x = RATE * keras.layers.Dense(2, kernel_initializer="zeros")(x)
    return keras.Model({"token_ids": ids, "padding_mask": mask}, x)


def read(split, options):
    reviews = data.read_labelled_texts(options.data, split=split)
    rows = data.documents(reviews.texts, reviews.labels)
    if split == "train":
        rows = rows.shuffle(len(reviews.texts), seed=0).repeat()
    return data.pad_documents(rows, options.length, 8)


def fit_and_test(attention, options):
    """Validation accuracies by epoch, and that on the test reviews."""
    keras.utils.set_random_seed(0)
    model = make_model(options.length, attention)
    steps, epochs = options.steps, max(options.steps // 50, 1)
    schedule = keras.optimizers.schedules.CosineDecay
    rate = schedule(0.0, steps, warmup_target=1e-3, warmup_steps=steps // 20)
    optimizer = keras.optimizers.AdamW(rate, 0.01, global_clipnorm=1.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    train, valid, test = (read(each, options) for each in SPLITS)
    lengths = {"steps_per_epoch": steps // epochs, "epochs": epochs}
    history = model.fit(train, validation_data=valid, shuffle=False, **lengths)
    accuracy = model.evaluate(test, return_dict=True)["accuracy"]
    return history.history["val_accuracy"], accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attention", nargs="+", default=["lsh"])
    parser.add_argument("--data", default=REVIEWS)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--picture", default="reviews.png")
    options = parser.parse_args()
    axis = Figure(figsize=(7, 4), layout="constrained").subplots()
    for attention in options.attention:
        accuracies, test = fit_and_test(attention, options)
        label = f"{attention} attention, test {test:.1%}"
        print(label)
        axis.plot(range(1, len(accuracies) + 1), accuracies, label=label)
    axis.set(xlabel="epoch of 50 steps", ylabel="accuracy, validation")
    axis.legend(frameon=False)
    axis.figure.savefig(options.picture, dpi=130)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
