"""Prompts in, texts out: what runs the loop from outside of graphs."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_reformer.generation.loop import Decoder, Loop, Request
from keras_reformer.ops.decoding import grow

# Prompts and caches have lengths from this one on, doubling, so that few
# programs are traced or compiled for many lengths.
_SHORTEST = 64
# Tokens between two signs of life.
_SEGMENT = 64
# Fewer new tokens are there before a bar could be read.
_TOKENS_WORTH_A_BAR = 512


def generate(
    loop: Loop,
    prompts: Sequence[Sequence[int]],
    max_length: int,
    *,
    seed: int | None = None,
    verbose: bool | str = "auto",
) -> list[np.ndarray]:
    """Continues prompts to `max_length`, as `ReformerCausalLM.generate` says.

    Args:
        loop: `Loop`.
        prompts: token ids of each row; rows may differ in length.
        max_length: Length of the results, prompt included.
        seed: Seed of the draws; None draws one.
        verbose: Whether to show a bar; `"auto"` shows it for long texts.

    Returns:
        List of int32 arrays, prompt included.
    """
    run = _Run(loop, prompts, max_length, seed)
    if verbose == "auto":
        verbose = run.columns - run.width >= _TOKENS_WORTH_A_BAR
    bar = keras.utils.Progbar(run.columns - run.width) if verbose else None
    while not run.finished:
        run.advance(_SEGMENT)
        if bar is not None:
            bar.update(run.column - run.width, finalize=run.finished)
    return run.texts()


def stream(
    loop: Loop,
    prompts: Sequence[Sequence[int]],
    max_length: int,
    *,
    seed: int | None = None,
) -> Iterator[list[np.ndarray]]:
    """Yields the new tokens of each row as they come; see `generate`."""
    run = _Run(loop, prompts, max_length, seed)
    told = run.lengths
    while not run.finished:
        run.advance(1)
        texts = run.texts()
        yield [text[n:] for text, n in zip(texts, told, strict=True)]
        told = [len(text) for text in texts]


class _Run:
    """One call of `generate`: rows, and how far they are."""

    def __init__(self, loop, prompts, max_length, seed):
        self.loop = loop
        texts = check(prompts, max_length, loop.decoder)
        self.lengths = [len(text) for text in texts]
        self.max_length = max_length
        if seed is None:
            seed = np.random.SeedSequence().entropy
        self.request = Request(
            np.int32(max_length),
            np.random.SeedSequence(seed).generate_state(2).view("int32"),
            np.float32(1.0),
        )
        self.finished = not texts
        self.width = self.columns = self.column = 0
        if texts:
            self._start(texts)

    def _start(self, texts):
        self.width = min(_room_for(max(self.lengths)), self.max_length)
        self.column = self.width
        self.columns = self.width + self.max_length - min(self.lengths)
        self.capacity = min(_room_for(self.width + 1), self.max_length)
        padded = np.zeros((len(texts), self.width), "int32")
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        self.rows = self.loop.start(
            padded,
            np.array(self.lengths, "int32"),
            np.int32(self.columns),
            np.int32(self.capacity),
            self.request,
        )
        self._look()

    def advance(self, count):
        """Fills up to `count` columns, fewer where the cache is full."""
        room = self.width - max(self.lengths) + self.capacity
        if self.column >= room and self.capacity < self.max_length:
            self.capacity = min(2 * self.capacity, self.max_length)
            grown = grow(self.rows.cache, self.capacity)
            self.rows = self.rows._replace(cache=grown)
            return self.advance(count)
        until = min(self.column + count, self.columns)
        if self.capacity < self.max_length:
            until = min(until, room)
        self.rows = self.loop.advance(
            self.rows, np.int32(until), np.int32(self.capacity), self.request
        )
        self._look()

    def _look(self):
        self.column = int(self.rows.column)
        self.finished = bool(np.all(self.rows.finished))

    def texts(self):
        """Each prompt's text so far, up to its stop token."""
        rows = (
            np.asarray(self.rows.tokens)[:: self.loop.sampler.copies]
            if (self.lengths)
            else []
        )
        return [
            self._text(row, length)
            for row, length in zip(rows, self.lengths, strict=True)
        ]

    def _text(self, row, length):
        first = self.width - length
        text = row[first : min(self.column, first + self.max_length)]
        ends = np.isin(text[length:], self.loop.stop_token_ids)
        if ends.any():
            text = text[: length + int(ends.argmax()) + 1]
        return text.astype("int32")


def check(
    prompts: Sequence[Sequence[int]], max_length: int, decoder: Decoder
) -> list[list[int]]:
    """Prompts as lists, or a `ValueError` that says what is wrong with one."""
    longest = decoder.max_sequence_length
    if max_length > longest:
        raise ValueError(
            "`max_length` exceeds what the model was made for. Expected at "
            f"most max_sequence_length={longest}. Received: "
            f"max_length={max_length}"
        )
    texts = [[int(token) for token in prompt] for prompt in prompts]
    for index, text in enumerate(texts):
        if not 1 <= len(text) <= max_length:
            raise ValueError(
                "A prompt must have at least one token and no more than "
                f"max_length={max_length}. Received: "
                f"len(prompts[{index}])={len(text)}"
            )
        outside = [t for t in text if not 0 <= t < decoder.vocabulary_size]
        if outside:
            raise ValueError(
                "A prompt holds token ids outside the vocabulary. Expected "
                f"ids from 0 to {decoder.vocabulary_size - 1}. Received: "
                f"prompts[{index}] with {outside[:5]}"
            )
    return texts


def _room_for(length: int) -> int:
    room = _SHORTEST
    while room < length:
        room *= 2
    return room
