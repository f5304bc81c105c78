"""Runs the decoding loop from outside of graphs: prompts in, texts out."""

import numbers
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import keras
import numpy as np

from keras_reformer.generation.hub import HubLoop
from keras_reformer.generation.loop import Loop
from keras_reformer.generation.prompts import check
from keras_reformer.generation.samplers import Sampler
from keras_reformer.generation.sources import NO_SOURCE, Source
from keras_reformer.ops.decoding.caches import (
    grow,
    pad_contexts,
    with_capacity,
)

# Lengths of prompts and caches are this one times a power of two, so that few
# programs are traced or compiled for many lengths.
_SHORTEST = 64
# Tokens between two updates of the progress bar.
_SEGMENT = 64
# Least number of new tokens for which a progress bar is shown.
_TOKENS_WORTH_A_BAR = 512


class Request(NamedTuple):
    """Settings of each row, whose text then depends on no other row.

    Attributes:
        max_length: int32 `(rows,)`. Length at which the row is finished.
        seed: int32 `(rows,)`.
        temperature: float32 `(rows,)`. Divides the logits that the sampler
            gets.
    """

    max_length: Any
    seed: Any
    temperature: Any


def generate(
    loop: Loop | HubLoop,
    prompts: Any,
    max_length: int,
    *,
    seed: int | None = None,
    padding_id: int | None = None,
    verbose: bool | str = "auto",
    source: Source = NO_SOURCE,
) -> list[np.ndarray]:
    """Continues prompts to `max_length`, as `ReformerCausalLM.generate` says.

    Args:
        loop: `Loop` or `HubLoop`.
        prompts: token ids of each row; rows may differ in length.
        max_length: Length of the results, prompt included.
        seed: Seed of the draws; None draws one.
        padding_id: Token that is padding at the ends of prompts.
        verbose: Whether to show a progress bar; `"auto"` shows it for long
            texts.
        source: What an encoder takes, a row for each prompt.

    Returns:
        List of int32 arrays, prompt included.
    """
    make = _HubRun if isinstance(loop, HubLoop) else _Run
    run = make(loop, prompts, max_length, seed, padding_id, source)
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
    prompts: Any,
    max_length: int,
    *,
    seed: int | None = None,
    padding_id: int | None = None,
    source: Source = NO_SOURCE,
) -> Iterator[list[np.ndarray]]:
    """Yields the new tokens of each row as they come; see `generate`.

    Raises:
        ValueError: if the sampler may replace earlier tokens, as beams do.
    """
    sampler = loop.sampler
    if not isinstance(sampler, Sampler) or sampler.copies > 1:
        raise ValueError(
            "Only samplers that choose a token for good can stream. Expected "
            "a `keras_reformer.generation.Sampler` other than beams. "
            f"Received: sampler={sampler!r}"
        )
    run = _Run(loop, prompts, max_length, seed, padding_id, source)
    return _stream(run)


def _stream(run):
    told = run.lengths
    while not run.finished:
        run.advance(1)
        texts = run.texts()
        yield [text[n:] for text, n in zip(texts, told, strict=True)]
        told = [len(text) for text in texts]


class _Run:
    """One call of `generate`: its state and its progress."""

    def __init__(self, loop, prompts, max_length, seed, padding_id, source):
        self.loop, self.source = loop, source
        texts = check(prompts, max_length, loop.decoder, padding_id)
        source.check_rows(len(texts))
        self.lengths = [len(text) for text in texts]
        self.max_length = max_length
        count = len(texts)
        self.request = Request(
            np.full(count, max_length, "int32"),
            row_seeds(seed, count),
            np.ones(count, "float32"),
        )
        self.finished = not texts
        self.width = self.columns = self.column = 0
        if texts:
            self._start(texts)

    def _start(self, texts):
        self.width = min(_room_for(max(self.lengths)), self.max_length)
        self.column = self.width
        self.columns = self.width + self.max_length - min(self.lengths)
        self.capacity = min(self._room(), self.max_length)
        self.prompts = np.zeros((len(texts), self.width), "int32")
        for row, text in zip(self.prompts, texts, strict=True):
            row[: len(text)] = text
        self._align(*self._prefill())

    def _room(self):
        return _room_for(self.width + 1)

    def _prefill(self):
        """A forward pass over the prompts without their last tokens."""
        known = np.array(self.lengths)[:, None] - 1
        mask = np.arange(self.width) < known
        if not self.loop.decoder.padding_matters:
            source = self.source.padded(_room_for)
            return self._pass_over(self.prompts, mask, source)
        parts = []
        for row, count in enumerate(known[:, 0]):
            # An empty prefix is one masked token.
            alone = slice(row, row + 1), slice(0, max(1, int(count)))
            source = self.source.row(row)
            states, cache = self._pass_over(
                self.prompts[alone], mask[alone], source
            )
            states = [with_capacity(x, self.width, axis=1) for x in states]
            parts.append((states, pad_contexts(cache, self.source.width)))
        return keras.tree.map_structure(
            lambda *rows: keras.ops.concatenate(rows), *parts
        )

    def _pass_over(self, token_ids, mask, source):
        capacity = np.int32(self.capacity)
        return self.loop.prefill(token_ids, mask, capacity, source)

    def _align(self, states, cache):
        self.state = self.loop.start(
            self.prompts,
            np.array(self.lengths, "int32"),
            np.int32(self.columns),
            cache,
            self.request,
        )
        self._follow_state()

    def advance(self, count):
        """Decodes up to `count` columns, fewer where the cache is full."""
        room = self.width - max(self.lengths) + self.capacity
        if self.column >= room and self.capacity < self.max_length:
            self.capacity = min(2 * self.capacity, self.max_length)
            grown = grow(self.state.cache, self.capacity)
            self.state = self.state._replace(cache=grown)
            return self.advance(count)
        until = min(self.column + count, self.columns)
        if self.capacity < self.max_length:
            until = min(until, room)
        self.state = self.loop.advance(
            self.state, np.int32(until), np.int32(self.capacity)
        )
        self._follow_state()

    def _follow_state(self):
        self.column = int(self.state.column)
        self.finished = bool(np.all(self.state.finished))

    def texts(self):
        """The texts so far, each up to its stop token."""
        rows = self._tokens() if self.lengths else []
        return [
            self._text(row, length)
            for row, length in zip(rows, self.lengths, strict=True)
        ]

    def _tokens(self):
        return np.asarray(self.state.tokens)[:: self.loop.sampler.copies]

    def _text(self, row, length):
        first = self.width - length
        text = row[first : min(self.column, first + self.max_length)]
        ends = np.isin(text[length:], self.loop.stop_token_ids)
        if ends.any():
            text = text[: length + int(ends.argmax()) + 1]
        return text.astype("int32")


class _HubRun(_Run):
    """A call with a sampler that decodes all columns at once."""

    def _room(self):
        return self.max_length

    def _align(self, states, cache):
        (hidden_states,) = states
        self.aligned = self.loop.start(
            self.prompts,
            np.array(self.lengths, "int32"),
            np.int32(self.columns),
            hidden_states,
        )
        self.cache, self.tokens = cache, self.aligned[0]
        self.finished = self.columns == self.width

    def advance(self, count):
        self.tokens = self.loop.run(
            *self.aligned,
            self.cache,
            np.int32(self.width),
            np.int32(self.capacity),
        )
        if tuple(self.tokens.shape) != tuple(self.aligned[0].shape):
            raise ValueError(
                "A sampler must return tokens of the prompt's shape. Expected "
                f"{tuple(self.aligned[0].shape)}. Received: "
                f"{tuple(self.tokens.shape)}"
            )
        self.column, self.finished = self.columns, True

    def _tokens(self):
        return np.asarray(self.tokens)


def row_seeds(seed: int | None, rows: int) -> np.ndarray:
    """Derives a seed for each row of a request.

    Args:
        seed: int of any size; None draws one.
        rows: int. The first seeds do not depend on it.

    Returns:
        int32 `(rows,)`.
    """
    if seed is None:
        seed = cast(int, np.random.SeedSequence().entropy)
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(
            "`seed` must be an integer of at least 0, or None. Received: "
            f"seed={seed!r}"
        )
    return np.random.SeedSequence(int(seed)).generate_state(rows).view("int32")


def _room_for(length: int) -> int:
    room = _SHORTEST
    while room < length:
        room *= 2
    return room
