"""Batches of the scripts on learning: functions of a seed and a number.

NumPy alone, so that a machine without TensorFlow makes them too
(`on_device.py`). A `functools.partial` of a function here can be pickled.
"""

import csv
import functools
import importlib.util
import io
import lzma
import pathlib
import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Streams of random numbers that never meet: one seeds a batch with
# `(seed, stream, index)`.
TRAINING, VALIDATION, EVALUATION, ORDER = range(4)
# The ids of bytes come after two special tokens (`ByteTokenizer`).
BYTE_OFFSET = 2
PADDING = 0
# What a run's folder has for `on_device.py`.
PLAN = "plan.pickle.xz"
# The first token of a review, whose state the classifier reads.
FIRST = 1
# In the place of a byte that is to be guessed.
HIDDEN = 256 + BYTE_OFFSET


def random(seed, stream, index):
    """NumPy's generator for one batch of a stream."""
    return np.random.default_rng((seed, stream, index))


def name_values(**kinds):
    """Lists of values as a dict for an .npz file."""
    return {
        f"{kind}-{number}": np.asarray(value)
        for kind, values in kinds.items()
        for number, value in enumerate(values)
    }


def load_plan(folder):
    """What `programs.py` wrote to run elsewhere, a dict."""
    return pickle.loads(lzma.decompress((folder / PLAN).read_bytes()))


def table_text(rows):
    """Rows, dicts of what is there, as a CSV file's text."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# === Associative recall ===


def _from_library(module, function):
    """A library's function from its file, which needs NumPy alone."""
    root = pathlib.Path(__file__).parents[2]
    path = root / "keras_reformer" / "data" / f"{module}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, function)


_recall_batch = _from_library("associative_recall", "associative_recall_batch")
_duplication_batch = _from_library("duplication", "duplication_batch")


def recall(seed, stream, sizes, vocabulary, fillers, index):
    """A batch of `(batch_size, length, pairs)`."""
    rng = random(seed, stream, index)
    return _recall_batch(rng, *sizes, vocabulary, fillers)


# === 0w0w ===


def duplication(seed, stream, batch_size, length, symbols, index):
    """Examples 0w0w, the next symbols, and weights.

    Args:
        seed, stream, index: of `random`.
        batch_size: int.
        length: int. Twice that of 0w.
        symbols: int. w has symbols from 1 to this.

    Returns:
        int32 tokens, int32 labels and float32 weights, `(batch_size,
        length)`; 1 where a symbol of the second w is next, else 0.
    """
    rng = random(seed, stream, index)
    return _duplication_batch(rng, batch_size, length, symbols)


# === Passkeys ===

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


def passkey(seed, stream, batch_size, length, text_weight, index):
    """Documents as token ids, the next ones, and weights.

    Args:
        seed, stream, index: of `random`.
        batch_size: int.
        length: int. Tokens of each.
        text_weight: float. Weight of all bytes but the last digits, each of
            which has weight `1 / 5`.

    Returns:
        int32 tokens, int32 labels and float32 weights, `(batch_size,
        length)`.
    """
    rng = random(seed, stream, index)
    texts = b"".join(document(rng, length)[0] for _ in range(batch_size))
    tokens = _token_ids(np.frombuffer(texts, np.uint8))
    tokens = tokens.reshape(batch_size, length + 1)
    weights = np.full((batch_size, length), text_weight / (length - DIGITS))
    weights[:, -DIGITS:] = 1 / DIGITS
    return tokens[:, :-1], tokens[:, 1:], weights.astype("float32")


# === Text ===


def windows(text, starts, length):
    """Token ids of windows of a text, and the next ones.

    Args:
        text: uint8 array.
        starts: int array of shape `(batch,)`.
        length: int.

    Returns:
        Two int32 arrays of shape `(batch, length)`.
    """
    found = text[np.asarray(starts)[:, None] + np.arange(length + 1)]
    tokens = _token_ids(found)
    return tokens[:, :-1], tokens[:, 1:]


def text_windows(seed, stream, batch_size, length, text, index):
    """Windows at random places of a text."""
    rng = random(seed, stream, index)
    starts = rng.integers(0, len(text) - length, batch_size)
    return windows(text, starts, length)


# === Reviews ===


class Reviews(NamedTuple):
    """Texts as bytes, and their labels, 1 for praise."""

    texts: list[bytes]
    labels: np.ndarray


def token_rows(texts, length, rng=None):
    """Token ids of texts behind a first token, and the padding mask.

    Args:
        texts: list of bytes.
        length: int. Tokens of a row; longer texts are cut.
        rng: NumPy generator, for a random part of longer texts, or None for
            the first.

    Returns:
        dict of int32 `token_ids` and bool `padding_mask`, `(len(texts),
        length)`.
    """
    rows = np.zeros((len(texts), length), "int32")
    rows[:, 0] = FIRST
    for row, text in zip(rows, texts, strict=True):
        spare = max(len(text) - (length - 1), 0)
        start = 0 if rng is None else int(rng.integers(spare + 1))
        part = text[start : start + length - 1]
        row[1 : len(part) + 1] = _token_ids(np.frombuffer(part, np.uint8))
    return {"token_ids": rows, "padding_mask": rows != PADDING}


def language(
    seed, stream, batch_size, texts, length, objective, mask_rate, index
):
    """Random texts for a language model: inputs, labels and weights."""
    rng = random(seed, stream, index)
    chosen = rng.choice(len(texts), batch_size, replace=False)
    texts = [texts[number] for number in chosen]
    return hide_bytes(rng, texts, length, objective, mask_rate)


def hide_bytes(rng, texts, length, objective, mask_rate):
    """What a language model learns of texts: inputs, labels, weights."""
    inputs = token_rows(texts, length, rng)
    tokens, valid = inputs["token_ids"], inputs["padding_mask"]
    if objective == "causal":
        labels = np.roll(tokens, -1, axis=1)
        weights = np.roll(valid, -1, axis=1)
        weights[:, -1] = False
    else:
        labels = tokens
        # Some byte of every text is hidden, or a batch might have none.
        weights = rng.random(tokens.shape) < mask_rate
        weights[:, 1] = True
        weights &= valid & (tokens != FIRST)
        inputs["token_ids"] = np.where(weights, HIDDEN, tokens)
    return inputs, labels, weights.astype("float32")


def labelled(seed, batch_size, reviews, length, crop, index):
    """Reviews and their labels; an epoch is a permutation of all."""
    count = len(reviews.labels)
    epoch, place = divmod(index, count // batch_size)
    order = random(seed, ORDER, epoch).permutation(count)
    chosen = order[place * batch_size : (place + 1) * batch_size]
    rng = random(seed, TRAINING, index) if crop else None
    texts = [reviews.texts[number] for number in chosen]
    return token_rows(texts, length, rng), reviews.labels[chosen]


# === Evaluation ===


class Batches(NamedTuple):
    """`batch(0)` to `batch(count - 1)`."""

    batch: Callable[[int], tuple]
    count: int


def parts(batch, batch_size):
    """A large batch as whole smaller ones; what is left over is left out."""
    count = len(batch[1])
    batch_size = min(batch_size, count)
    return Batches(
        functools.partial(_part, batch, batch_size), count // batch_size
    )


def _part(batch, batch_size, index):
    if isinstance(batch, dict):
        return {
            name: _part(rows, batch_size, index) for name, rows in batch.items()
        }
    if isinstance(batch, tuple):
        return tuple(_part(rows, batch_size, index) for rows in batch)
    return batch[index * batch_size : (index + 1) * batch_size]


def weight(batch):
    """The sum of a batch's sample weights."""
    return float(np.sum(batch[2])) if len(batch) > 2 else float(len(batch[1]))


def mean(results, weights):
    """Weighted means of what the batches gave."""
    return {
        name: float(
            np.average([each[name] for each in results], weights=weights)
        )
        for name in results[0]
    }


def keras_mean(results, weights):
    """As `mean`, but with the plain mean of the losses: Keras's losses divide
    by the number of labels, whatever these weigh."""
    losses = [each["loss"] for each in results]
    return {**mean(results, weights), "loss": float(np.mean(losses))}


def all_right(results, weights):
    """How many batches, of one document each, have no error."""
    accuracies = [each["accuracy"] for each in results]
    return {
        "all_right": sum(accuracy > 0.999 for accuracy in accuracies),
        "digits_right": float(np.mean(accuracies)),
    }


def _token_ids(values):
    """Ids of bytes, as `ByteTokenizer` has them."""
    return values.astype("int32") + BYTE_OFFSET
