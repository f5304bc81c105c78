"""KerasHub's samplers, which run the decoding loop themselves."""

import keras

from keras_reformer.generation.loop import align, with_column
from keras_reformer.ops.tracing import traced


class HubLoop:
    """Decoding of one model with a sampler of KerasHub.

    The sampler is called as `sampler(next=..., prompt=..., cache=...,
    index=..., mask=..., stop_token_ids=..., hidden_states=..., model=...)`
    and returns the prompt with all of its columns filled, or as many as it
    takes until each row has a stop token.

    Args:
        decoder: `Decoder`.
        sampler: the sampler.
        stop_token_ids: tuple of ints. Tokens that end a row.
        jit_compile: bool. Defaults to `False`.
        model: what the sampler gets as `model`.
    """

    def __init__(
        self,
        decoder,
        sampler,
        stop_token_ids=(),
        jit_compile=False,
        model=None,
    ):
        self.decoder = decoder
        self.sampler = sampler
        self.stop_token_ids = stop_token_ids
        self.model = model
        self.prefill = traced(self.prefill_rows)
        self.start = traced(self.start_rows)
        self.run = traced(self.run_rows, jit_compile)

    def prefill_rows(self, token_ids, padding_mask, capacity, source=()):
        """Hidden states of prompts, in a list, and their cache."""
        states, cache = self.decoder.prefill(
            token_ids, padding_mask, capacity, *source
        )
        return [states], cache

    def start_rows(self, token_ids, lengths, columns, hidden_states):
        """Right-aligned prompts and their hidden states.

        Args:
            token_ids: int32 `(batch, length)`. Prompts, padded behind.
            lengths: int32 `(batch,)`.
            columns: int32 scalar, at least `length`.
            hidden_states: `(batch, length, dim)`.

        Returns:
            Token ids `(batch, columns)`, offsets `(batch,)`, and hidden
            states `(batch, columns, dim)`. Before a row begins they are those
            of its first token: zeros have no cosine similarity.
        """
        tokens, offset = align(token_ids, lengths, columns)
        column = keras.ops.arange(columns, dtype="int32")
        width = keras.ops.shape(token_ids)[1]
        tokens = keras.ops.where(column < width, tokens, self._filler())
        position = column - offset[:, None]
        position = keras.ops.clip(position, 0, lengths[:, None] - 1)
        hidden_states = keras.ops.take_along_axis(
            hidden_states, position[:, :, None], axis=1
        )
        return tokens, offset, hidden_states

    def _filler(self):
        """A token for future columns that is not a stop token."""
        ids = range(self.decoder.vocabulary_size)
        others = (token for token in ids if token not in self.stop_token_ids)
        return next(others, 0)

    def run_rows(self, tokens, offset, hidden_states, cache, index, capacity):
        """Decodes the columns from `index` on.

        Args:
            tokens: int32 `(batch, columns)`.
            offset: int32 `(batch,)`. The column in which a row begins.
            hidden_states: `(batch, columns, dim)`.
            cache: the cache of all tokens before column `index - 1`.
            index: int32 scalar.
            capacity: int32 scalar. Positions that fit into the cache, which
                is the length of a complete text.

        Returns:
            int32 `(batch, columns)`.
        """
        ops = keras.ops
        size = self.decoder.vocabulary_size
        stop = next(iter(self.stop_token_ids), self._filler())
        certain = ops.where(ops.arange(size) == stop, 0.0, -1e9)
        constants = self.decoder.constants()

        def step(prompt, cache, index):
            # Samplers repeat and gather offsets as part of the cache.
            offset, cache = cache
            last = ops.take(prompt, index - 1, axis=1)[:, None]
            position = index - 1 - offset
            logits, hidden_states, cache = self.decoder.decode(
                last, cache, ops.clip(position, 0, capacity - 1), constants
            )
            # A complete text goes on at no cost, so beams keep their scores.
            whole = (position + 1 >= capacity)[:, None]
            logits = ops.where(whole, certain, logits)
            return logits, hidden_states, (offset, cache)

        cache = offset, cache
        _, last, _ = step(tokens, cache, index)
        return self.sampler(
            next=step,
            prompt=tokens,
            cache=cache,
            index=index,
            mask=ops.broadcast_to(
                ops.arange(ops.shape(tokens)[1], dtype="int32") < index,
                ops.shape(tokens),
            ),
            stop_token_ids=list(self.stop_token_ids) or None,
            hidden_states=with_column(hidden_states, index - 1, last),
            model=self.model,
        )
