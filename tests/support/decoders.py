"""Models of a few lines for the loop to decode."""

from typing import NamedTuple

import keras
import numpy as np

from keras_reformer.generation import Decoder, Loop, generate, get_sampler

VOCABULARY = 6
LONGEST = 200


class Tape(NamedTuple):
    """A cache of all tokens: int32 `(rows, capacity)`."""

    tokens: object

    def grown(self, capacity):
        spare = capacity - self.tokens.shape[1]
        return Tape(keras.ops.pad(self.tokens, [(0, 0), (0, spare)]))


def remembering(table, longest=LONGEST, **options):
    """A model whose logits follow from all tokens; see `logits_after`."""
    table = keras.ops.convert_to_tensor(table, "float32")
    ops = keras.ops

    def prefill(token_ids, padding_mask, capacity):
        tokens = ops.where(padding_mask, token_ids, 0)
        place = ops.arange(capacity, dtype="int32")
        last = ops.shape(tokens)[1] - 1
        known = ops.take(tokens, ops.minimum(place, last), axis=1)
        tape = ops.where(place <= last, known, 0)
        return ops.one_hot(token_ids, len(table)), Tape(tape)

    def decode(token_ids, cache, positions, constants):
        place = ops.arange(ops.shape(cache.tokens)[1], dtype="int32")
        here = place == positions[:, None]
        tokens = ops.where(here, token_ids, cache.tokens)
        known = ops.where(place <= positions[:, None], tokens, 0)
        row = ops.sum(known * (place + 1), axis=1) % len(table)
        states = ops.one_hot(token_ids[:, 0], len(table))
        return ops.take(table, row, axis=0), states, Tape(tokens)

    return Decoder(prefill, tuple, decode, len(table), longest, **options)


def logits_after(table, text):
    """What that model says after a text."""
    weights = np.arange(1, len(text) + 1)
    return table[int(weights @ np.array(text)) % len(table)]


def following(table, longest=LONGEST):
    """A model whose logits follow from the last token alone."""
    table = keras.ops.convert_to_tensor(table, "float32")

    def prefill(token_ids, padding_mask, capacity):
        return keras.ops.one_hot(token_ids, len(table)), ()

    def decode(token_ids, cache, positions, constants):
        logits = keras.ops.take(table, token_ids[:, 0], axis=0)
        return logits, logits, cache

    return Decoder(prefill, tuple, decode, len(table), longest)


def counting():
    """A model that says after each token the next number."""
    return following(50.0 * np.roll(np.eye(VOCABULARY), 1, axis=1))


def fair():
    """A model to which all tokens are equally probable."""
    return following(np.zeros((VOCABULARY, VOCABULARY)))


def make_table(seed=0, size=VOCABULARY):
    """Logits at random, float32 so that nothing is rounded."""
    rng = np.random.default_rng(seed)
    return 2.0 * rng.normal(size=(size, size)).astype("float32")


def run(
    decoder,
    prompts,
    max_length,
    sampler="greedy",
    stops=(),
    jit=False,
    **options,
):
    """Texts as lists."""
    loop = Loop(decoder, get_sampler(sampler), stops, jit)
    texts = generate(loop, prompts, max_length, **options)
    assert all(isinstance(text, np.ndarray) for text in texts)
    assert all(text.dtype == "int32" for text in texts)
    return [text.tolist() for text in texts]
