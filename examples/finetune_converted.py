"""Fine-tunes a published, causal checkpoint to see both sides of a token.

    python examples/finetune_converted.py [--checkpoint FOLDER]

Every public Reformer is causal. `config={"is_decoder": False}` takes that off
and gives a masked language model, whose `backbone` suits a classifier too.
Without a folder it first writes a checkpoint in the published format, a small
language model of Python's standard library. Beside it stand random weights.
"""

import argparse

import keras
from matplotlib.figure import Figure

import keras_reformer
from keras_reformer import convert, data

LENGTH, STEPS = 512, 20


def write_checkpoint(folder, steps):
    """Trains a causal language model and saves it as published ones are."""
    corpus = data.split_by_position(data.read_corpus("python"))
    model = keras_reformer.ReformerCausalLM(
        vocabulary_size=data.ByteTokenizer.vocabulary_size,
        num_layers=2,
        num_heads=2,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=LENGTH,
        chunk_length=32,
        # The published rule, which the format implies.
        scope="chunk",
        wrap=True,
    )
    model.compile(
        keras.optimizers.Adam(4e-3), metrics=[keras_reformer.BitsPerByte()]
    )
    windows = data.training_windows(corpus.train, LENGTH, 16, seed=0)
    model.fit(windows, steps_per_epoch=steps, shuffle=False)
    try:
        keras_reformer.ReformerClassifier(
            backbone=model.backbone, num_classes=2
        )
    except ValueError as error:
        print(f"A causal backbone is refused:\n{error}")
    convert.save_huggingface(model, folder)


def fine_tune(model, corpus, epochs):
    """Bits per hidden byte of held-out text, before and in training."""
    # No window has the id of a text's end: it stands for what is hidden.
    hidden = data.ByteTokenizer.end_id
    batches = data.training_windows(corpus.train, LENGTH, 16, seed=1)
    held_out = data.evaluation_windows(
        corpus.validation, LENGTH, 16, max_windows=64
    )
    held_out = data.mask_spans(held_out, hidden, seed=2, mean_length=1.0)
    model.compile(
        keras.optimizers.Adam(2e-3),
        weighted_metrics=[keras_reformer.BitsPerByte()],
    )
    start = model.evaluate(held_out, return_dict=True)["bits_per_byte"]
    history = model.fit(
        data.mask_spans(batches, hidden, seed=1, mean_length=1.0),
        steps_per_epoch=STEPS,
        epochs=epochs,
        shuffle=False,
        validation_data=held_out,
    )
    return [start, *history.history["val_bits_per_byte"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="with config.json; bytes, plus 2")
    parser.add_argument("--steps", type=int, default=400, help="of writing one")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--picture", default="finetuned.png")
    options = parser.parse_args()
    folder = options.checkpoint or "checkpoint"
    if options.checkpoint is None:
        write_checkpoint(folder, options.steps)
    masked_lm = convert.load_huggingface(folder, config={"is_decoder": False})
    scratch = type(masked_lm).from_config(masked_lm.get_config())
    corpus = data.split_by_position(data.read_corpus("python"))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    starts = {"the checkpoint": masked_lm, "random weights": scratch}
    for name, model in starts.items():
        print(f"Training from {name}")
        bits = fine_tune(model, corpus, options.epochs)
        steps = range(0, STEPS * len(bits), STEPS)
        label = f"from {name}, {bits[-1]:.2f}"
        axis.plot(steps, bits, "o-", label=label)
    axis.set(xlabel="steps", ylabel="bits per hidden byte, held out")
    axis.legend(frameon=False)
    figure.savefig(options.picture, dpi=130)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
