"""The decoding loop: continues prompts token by token.

Rows are right-aligned, so that all prompts end at the same column; the
position of a token is its column minus the row's `offset`. One forward pass
over the prompts fills the cache, then each step decodes the last column and
samples the next one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_reformer.ops.tracing import traced


class Decoder(NamedTuple):
    """A model as the functions of tensors that the loop calls.

    Attributes:
        prefill: `(token_ids, padding_mask, capacity, *source) ->
            (hidden_states, cache)`; the source is what a request gives to an
            encoder: token ids and their mask.
        constants: `() -> constants`: tensors that are equal in all steps.
        decode: `(token_ids, cache, positions, constants) -> (logits,
            hidden_states, cache)`: from one token of each row `(rows, 1)` at
            `(rows,)` to float32 logits `(rows, vocabulary_size)` of what
            follows it, and its states `(rows, dim)`.
        vocabulary_size: int.
        max_sequence_length: int.
        padding_matters: bool. Whether padding behind a prompt changes its
            outputs. Then each prompt gets a forward pass of its own.
    """

    prefill: Callable
    constants: Callable
    decode: Callable
    vocabulary_size: int
    max_sequence_length: int
    padding_matters: bool = False


class DecodingState(NamedTuple):
    """What one step of the loop hands to the next.

    Attributes:
        tokens: int32 `(rows, columns)`.
        offset: int32 `(rows,)`. The column in which a row begins.
        column: int32 scalar. The one to fill next.
        finished: bool `(rows,)`.
        seen: bool `(rows, vocabulary_size)`: tokens that a row contains, or
            `(rows, 0)` without a repetition penalty.
        request: `Request`.
        cache: the model's cache.
        sampler: the sampler's state.
    """

    tokens: Any
    offset: Any
    column: Any
    finished: Any
    request: Any
    seen: Any
    cache: Any
    sampler: Any


class Loop:
    """The decoding loop of one model with one sampler.

    Its functions are traced at their first call and keep the settings of that
    time; `TraceCache` makes a new loop when settings have changed.

    Args:
        decoder: `Decoder`.
        sampler: `Sampler`.
        stop_token_ids: tuple of ints. Tokens that end a row.
        jit_compile: bool. Defaults to `False`.
    """

    def __init__(self, decoder, sampler, stop_token_ids=(), jit_compile=False):
        self.decoder = decoder
        self.sampler = sampler
        self.stop_token_ids = stop_token_ids
        # Without XLA: the shapes of prompts are not known while tracing.
        self.prefill = traced(self.prefill_rows)
        self.start = traced(self.start_rows)
        self.advance = traced(self.advance_rows, jit_compile)

    def prefill_rows(self, token_ids, padding_mask, capacity, source=()):
        """The cache of prompts, and no hidden states."""
        _, cache = self.decoder.prefill(
            token_ids, padding_mask, capacity, *source
        )
        return [], cache

    def start_rows(self, token_ids, lengths, columns, cache, request):
        """The `DecodingState` before the first step.

        Args:
            token_ids: int32 `(batch, length)`. Prompts, padded behind.
            lengths: int32 `(batch,)`.
            columns: int32 scalar, at least `length`. Width of the state's
                `tokens`.
            cache: of all of the prompts but their last tokens.
            request: `Request`.
        """
        ops = keras.ops
        width = ops.shape(token_ids)[1]
        tokens, offset = align(token_ids, lengths, columns)
        state = DecodingState(
            tokens=tokens,
            offset=offset,
            column=ops.cast(width, "int32"),
            finished=lengths >= request.max_length,
            request=request,
            seen=self._seen(tokens, offset, width),
            cache=cache,
            sampler=(),
        )
        state = _take_rows(state, self._copies(ops.shape(lengths)[0]))
        return state._replace(sampler=self.sampler.start(ops.shape(lengths)[0]))

    def _copies(self, batch):
        """Row indices, each `copies` times, or None for one copy."""
        if self.sampler.copies == 1:
            return None
        rows = keras.ops.arange(batch, dtype="int32")
        return keras.ops.repeat(rows, self.sampler.copies)

    def _seen(self, tokens, offset, width):
        count = keras.ops.shape(tokens)[0]
        if self.sampler.repetition_penalty == 1.0:
            return keras.ops.zeros((count, 0), "bool")
        column = keras.ops.arange(keras.ops.shape(tokens)[1])
        valid = (column >= offset[:, None]) & (column < width)
        # Padding goes to an extra column, which is cropped.
        index = keras.ops.where(valid, tokens, self.decoder.vocabulary_size)
        row = keras.ops.broadcast_to(
            keras.ops.arange(count, dtype="int32")[:, None],
            keras.ops.shape(index),
        )
        seen = keras.ops.zeros(
            (count, self.decoder.vocabulary_size + 1), "int32"
        )
        index = keras.ops.reshape(keras.ops.stack([row, index], -1), (-1, 2))
        ones = keras.ops.ones(keras.ops.shape(index)[:1], "int32")
        return keras.ops.scatter_update(seen, index, ones)[:, :-1] > 0

    def complete(self, token_ids, lengths, request, source=()):
        """Completes prompts within a graph.

        Args:
            token_ids: int32 `(batch, length)`. Prompts, padded behind.
            lengths: int32 `(batch,)`.
            request: `Request`.
            source: what an encoder takes: token ids and their mask.

        Returns:
            int32 `(batch, longest max_length)`, prompts included, zero behind
            each text; and int32 `(batch,)`, the texts' lengths.
        """
        ops, longest = keras.ops, keras.ops.max(request.max_length)
        width = ops.shape(token_ids)[1]
        known = ops.arange(width)[None] < lengths[:, None] - 1
        _, cache = self.prefill_rows(token_ids, known, longest, source)
        columns = ops.cast(width, "int32") + longest - ops.min(lengths)
        state = self.start_rows(token_ids, lengths, columns, cache, request)
        state = self.advance_rows(state, columns, longest)
        best = ops.arange(ops.shape(lengths)[0], dtype="int32")
        state = _take_rows(
            state._replace(cache=(), sampler=()), best * self.sampler.copies
        )
        return self._texts(state, lengths, longest)

    def _texts(self, state, lengths, longest):
        """Left-aligned texts, zero behind their ends, and their lengths."""
        ops = keras.ops
        place = ops.arange(longest, dtype="int32")
        last = ops.shape(state.tokens)[1] - 1
        index = ops.minimum(state.offset[:, None] + place, last)
        texts = ops.take_along_axis(state.tokens, index, axis=1)
        ends = _is_any(texts, self.stop_token_ids) & (place >= lengths[:, None])
        first = ops.cast(ops.argmax(ends, axis=1), "int32") + 1
        limit = ops.maximum(state.request.max_length, lengths)
        found = ops.where(ops.any(ends, axis=1), first, limit)
        return ops.where(place < found[:, None], texts, 0), found

    def advance_rows(self, state, until, capacity):
        """Decodes columns up to `until`, or until all rows are finished.

        Args:
            state: `DecodingState`.
            until: int32 scalar.
            capacity: int32 scalar. Positions that fit into the cache.

        Returns:
            `DecodingState`.
        """
        constants = self.decoder.constants()

        def unfinished(*state):
            state = DecodingState(*state)
            return (state.column < until) & ~keras.ops.all(state.finished)

        def step(*state):
            return tuple(self._step(DecodingState(*state), capacity, constants))

        return DecodingState(
            *keras.ops.while_loop(unfinished, step, tuple(state))
        )

    def _step(self, state, capacity, constants):
        ops, request = keras.ops, state.request
        last = ops.take(state.tokens, state.column - 1, axis=1)
        position = state.column - 1 - state.offset
        logits, _, cache = self.decoder.decode(
            # Finished rows may be beyond the cache's capacity.
            last[:, None],
            state.cache,
            ops.minimum(position, capacity - 1),
            constants,
        )
        logits = self._penalized(
            logits / request.temperature[:, None], state.seen
        )
        choice = self.sampler.choose(
            logits, request.seed, position + 1, state.finished, state.sampler
        )
        state = _take_rows(state._replace(cache=cache), choice.parents)
        tokens = ops.where(state.finished, 0, choice.tokens)
        ended = _is_any(tokens, self.stop_token_ids)
        position = state.column - 1 - state.offset
        ended = ended | (position + 2 >= state.request.max_length)
        return state._replace(
            tokens=with_column(state.tokens, state.column, tokens),
            column=state.column + 1,
            finished=state.finished | ended,
            seen=self._with_tokens(state.seen, tokens),
            sampler=choice.state,
        )

    def _penalized(self, logits, seen):
        penalty = self.sampler.repetition_penalty
        if penalty == 1.0:
            return logits
        lower = keras.ops.where(logits > 0, logits / penalty, logits * penalty)
        return keras.ops.where(seen, lower, logits)

    def _with_tokens(self, seen, tokens):
        if self.sampler.repetition_penalty == 1.0:
            return seen
        size = self.decoder.vocabulary_size
        return seen | keras.ops.one_hot(tokens, size, dtype="bool")


def align(token_ids, lengths, columns):
    """Right-aligns rows, so that all end at the same column.

    Args:
        token_ids: int32 `(batch, length)`, padded behind.
        lengths: int32 `(batch,)`.
        columns: int32 scalar, at least `length`.

    Returns:
        int32 `(batch, columns)`, zero where there is no token, and the
        offsets `(batch,)`: the columns in which rows begin.
    """
    ops = keras.ops
    width = ops.cast(ops.shape(token_ids)[1], "int32")
    offset = width - lengths
    position = ops.arange(columns, dtype="int32") - offset[:, None]
    there = (position >= 0) & (position < lengths[:, None])
    index = ops.clip(position, 0, width - 1)
    tokens = ops.take_along_axis(token_ids, index, axis=1)
    return ops.where(there, tokens, 0), offset


def with_column(x, column, values):
    """Replaces one column of all rows.

    (`keras.ops.slice_update` would have XLA compile and keep a program for
    every shape, also in graphs that are not compiled.)

    Args:
        x: `(rows, columns, ...)`.
        column: int32 scalar.
        values: `(rows, ...)`.
    """
    row = keras.ops.arange(keras.ops.shape(x)[0], dtype="int32")
    index = keras.ops.stack([row, keras.ops.zeros_like(row) + column], -1)
    return keras.ops.scatter_update(x, index, values)


def _take_rows(state, index):
    """Gathers rows of a state; None leaves it unchanged."""
    if index is None:
        return state

    def taken(x):
        return keras.ops.take(x, index, axis=0) if len(x.shape) else x

    moved = keras.tree.map_structure(taken, state._replace(sampler=()))
    return moved._replace(sampler=state.sampler)


def _is_any(tokens, candidates):
    """Whether each token is one of the candidates."""
    found = keras.ops.zeros_like(tokens, "bool")
    for candidate in candidates:
        found = found | (tokens == candidate)
    return found
