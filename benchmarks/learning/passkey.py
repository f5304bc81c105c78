"""Does LSH attention find five digits in half a million bytes?

    python benchmarks/learning/passkey.py --kinds lsh --seeds 0
    python benchmarks/learning/passkey.py --evaluate 16384,524288
    python benchmarks/learning/passkey.py --report

Passkey retrieval (Mohtashami and Jaggi 2023, arXiv 2305.16300), byte level:
a document repeats the same sentences, says a passkey of five random digits
at a random place among them, and ends with the question for it and the
answer. Trained with a curriculum of lengths, on the five bytes of the answer
and, for the share `--text-weight`, on the rest of the text.

Counts, at each length of `--evaluate`, the documents whose five digits are
all right: each is the most probable byte, the digits before it given.
`runs.py` says how runs are kept and resumed.
"""

import functools

import models
import numpy as np
import reports
import runs
import tensorflow as tf

from keras_reformer.data import ByteTokenizer

HEAD = (
    "There is an important info hidden inside a lot of irrelevant text. Find "
    "it and memorize it. I will quiz you about the important information "
    "there. "
)
SENTENCES = (
    "The grass is green. ",
    "The sky is blue. ",
    "The sun is yellow. ",
    "Here we go. ",
    "There and back again. ",
)
PASSKEY = "The pass key is {0}. Remember it. {0} is the pass key. "
QUESTION = "What is the pass key? The pass key is "
DIGITS = 5
OPTIONS = {
    "stages": (
        "512:1500:32,2048:500:8,8192:300:2,16384:200:1",
        "length:steps[:batch size],...",
    ),
    "batch_size": (16, "documents in a step, where a stage does not say"),
    "text_weight": (0.1, "of the text, beside 1 for the digits"),
    "validate_documents": (64, "in a validation"),
    "documents": (20, "in an evaluation at the end"),
    **models.OPTIONS,
    "layers": (4, "reversible blocks"),
    "width": (128, "of embeddings and of each stream"),
    "heads": (4, "of attention"),
    "chunk_length": (64, "tokens in a chunk of LSH attention"),
}
QUICK = {
    "stages": "384:200:16",
    "evaluate": (1024,),
    "documents": 4,
    "validate_documents": 16,
    "evaluate_every": 50,
    "layers": 2,
    "width": 64,
}


# === Data ===


def document(rng, length):
    """A document of `length + 1` bytes, and its passkey.

    Args:
        rng: NumPy generator.
        length: int. At least 300, for the parts that are no filler.

    Returns:
        bytes that end with the passkey, and that as bytes.
    """
    key = "".join(map(str, rng.integers(0, 10, DIGITS))).encode()
    told = PASSKEY.format(key.decode()).encode()
    end = QUESTION.encode() + key
    room = length + 1 - len(HEAD) - len(told) - len(end)
    filler, ends = fillers(room)
    place = int(rng.choice(ends))
    parts = (HEAD.encode(), filler[:place], told, filler[place:], end)
    return b"".join(parts), key


@functools.lru_cache
def fillers(room):
    """Sentences that fill so many bytes, the last one cut, and their ends."""
    if room < 0:
        raise ValueError(
            "A document has no room for the passkey and the question. "
            f"Expected {-room} bytes more. Received: a length too short"
        )
    lengths = [len(sentence) for sentence in SENTENCES]
    count = room // sum(lengths) + 1
    ends = np.cumsum([0, *lengths * count])
    return "".join(SENTENCES * count).encode()[:room], ends[ends <= room]


def passkey_batch(rng, batch_size, length, text_weight=0.0):
    """Documents as token ids, the next ones, and weights.

    Args:
        rng: NumPy generator.
        batch_size: int.
        length: int. Tokens of each.
        text_weight: float. Weight of all bytes but the last digits, each of
            which has weight `1 / 5`.

    Returns:
        int32 tokens, int32 labels and float32 weights, `(batch_size,
        length)`.
    """
    texts = b"".join(document(rng, length)[0] for _ in range(batch_size))
    tokens = ByteTokenizer().tokenize(texts).reshape(batch_size, length + 1)
    weights = np.full((batch_size, length), text_weight / (length - DIGITS))
    weights[:, -DIGITS:] = 1 / DIGITS
    return tokens[:, :-1], tokens[:, 1:], weights.astype("float32")


def stages(options, seed):
    return [
        make_stage(options, seed, *stage)
        for stage in runs.fields(options.stages)
    ]


def make_stage(options, seed, length, steps, batch_size=None):
    batch_size = batch_size or options.batch_size
    count = -(-options.validate_documents // batch_size) * batch_size
    return runs.Stage(
        steps,
        lambda index: passkey_batch(
            runs.random(seed, runs.TRAINING, index),
            batch_size,
            length,
            options.text_weight,
        ),
        lambda: passkey_batch(
            runs.random(seed, runs.VALIDATION, length), count, length
        ),
        batch_size,
        {"length": length},
    )


# === A run ===


def run(options, kind, seed):
    plan = stages(options, seed)
    longest = max(stage.columns["length"] for stage in plan)
    size = ByteTokenizer.vocabulary_size
    model = models.causal_lm(kind, options, size, longest, seed)
    steps = sum(stage.steps for stage in plan)
    runs.compile_model(model, steps, options, metrics=["accuracy"])
    if runs.train(model, plan, options, kind, seed):
        for length in options.evaluate:
            evaluate(model, options, kind, seed, length)


def evaluate(model, options, kind, seed, length):
    other = functools.cache(
        lambda: models.with_length(model, kind, options, length, seed)
    )
    for rounds in options.rounds if models.hashes(kind) else [0]:
        runs.evaluate(
            runs.run_folder(options, kind, seed),
            {
                "length": length,
                "rounds": rounds,
                "documents": options.documents,
            },
            lambda: count_right(other(), options, seed, length, rounds),  # noqa: B023
        )


def count_right(model, options, seed, length, rounds):
    """Documents with all digits right, and the share of right digits."""
    models.attend(model.backbone, rounds)
    answers = answering(model)
    right = []
    for index in range(options.documents):
        rng = runs.random(seed, runs.EVALUATION, index)
        tokens, labels, _ = passkey_batch(rng, 1, length)
        right.append(answers(tokens).numpy()[0] == labels[0, -DIGITS:])
        print(
            f"document {index + 1}: {right[-1].sum()} of {DIGITS} digits",
            flush=True,
        )
    right = np.array(right)
    return {
        "all_right": int(right.all(axis=1).sum()),
        "digits_right": float(right.mean()),
    }


def answering(model):
    """A function of tokens to the most probable last ones."""

    @tf.function(autograph=False, jit_compile=True)
    def answers(tokens):
        hidden = model.backbone.before_normalization(tokens, training=False)
        hidden = model.backbone.normalization(hidden[:, -DIGITS:])
        return tf.argmax(model.head(hidden), axis=-1, output_type=tf.int32)

    return answers


# === Report ===


def report(options):
    table = reports.evaluation_table(
        options,
        "documents with all digits right",
        ("length", "documents"),
        "rounds",
        lambda row: row["all_right"],
    )
    reports.report(options, [reports.training_table(options), table])
    reports.plot_curves(
        options,
        {"val_accuracy": "share of digits right"},
        "Passkey retrieval, fresh documents",
    )


def main():
    parser = runs.make_parser(__doc__, __file__, ("lsh",), OPTIONS)
    parser.add_argument(
        "--evaluate",
        type=runs.numbers,
        default=(16384, 524288),
        help="lengths, with commas between",
    )
    parser.add_argument(
        "--rounds",
        type=runs.numbers,
        default=(4,),
        help="of hashing, in evaluations; 0 for exact attention",
    )
    runs.run_all(runs.parse(parser, QUICK), run, report)


if __name__ == "__main__":
    main()
