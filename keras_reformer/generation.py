"""Samplers, and the loop that continues prompts token by token."""

from collections.abc import Callable, Sequence

import numpy as np

# Prompts are padded to lengths from this one on, doubling, so that few
# programs are compiled for many lengths.
_SHORTEST_PADDED = 64


class Sampler:
    """Chooses the next token of each row from its logits.

    Args:
        temperature: float. Logits are divided by it. Defaults to `1.0`.
    """

    def __init__(self, temperature: float = 1.0):
        if not temperature > 0:
            raise ValueError(
                "`temperature` must be positive. Received: "
                f"temperature={temperature}"
            )
        self.temperature = temperature

    def __call__(
        self, logits: np.ndarray, random: np.random.Generator
    ) -> np.ndarray:
        """Next token ids `(batch,)` from logits `(batch, vocabulary)`."""
        scaled = logits.astype("float64") / self.temperature
        probabilities = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        probabilities = self.restrict(probabilities)
        cumulative = np.cumsum(probabilities, axis=-1)
        draws = random.random(len(logits)) * cumulative[:, -1]
        return (cumulative <= draws[:, None]).sum(axis=-1).astype("int32")

    def restrict(self, probabilities: np.ndarray) -> np.ndarray:
        """Sets the probability of tokens that may not come to zero."""
        return probabilities


class RandomSampler(Sampler):
    """Draws from the whole distribution."""


class GreedySampler(Sampler):
    """Takes the most probable token."""

    def __call__(self, logits, random):
        return np.argmax(logits, axis=-1).astype("int32")


class TopKSampler(Sampler):
    """Draws among the `k` most probable tokens.

    Args:
        k: int. Defaults to `5`.
        temperature: float. Defaults to `1.0`.
    """

    def __init__(self, k: int = 5, temperature: float = 1.0):
        super().__init__(temperature)
        if k < 1:
            raise ValueError(f"`k` must be at least 1. Received: k={k}")
        self.k = k

    def restrict(self, probabilities):
        order = np.argsort(-probabilities, axis=-1, kind="stable")
        restricted = np.zeros_like(probabilities)
        kept = order[:, : self.k]
        values = np.take_along_axis(probabilities, kept, axis=-1)
        np.put_along_axis(restricted, kept, values, axis=-1)
        return restricted


class TopPSampler(Sampler):
    """Draws among the most probable tokens that together reach `p`.

    Args:
        p: float in `(0, 1]`. Defaults to `0.9`.
        temperature: float. Defaults to `1.0`.

    Reference: [Holtzman et al., 2019](https://arxiv.org/abs/1904.09751).
    """

    def __init__(self, p: float = 0.9, temperature: float = 1.0):
        super().__init__(temperature)
        if not 0 < p <= 1:
            raise ValueError(f"`p` must be in `(0, 1]`. Received: p={p}")
        self.p = p

    def restrict(self, probabilities):
        order = np.argsort(-probabilities, axis=-1, kind="stable")
        values = np.take_along_axis(probabilities, order, axis=-1)
        before = np.cumsum(values, axis=-1) - values
        restricted = np.zeros_like(probabilities)
        kept = np.where(before < self.p, values, 0.0)
        np.put_along_axis(restricted, order, kept, axis=-1)
        return restricted


_SAMPLERS = {
    "greedy": GreedySampler,
    "random": RandomSampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
}


def get_sampler(sampler: str | Sampler) -> Sampler:
    """A sampler by name, or the sampler itself."""
    if isinstance(sampler, str):
        if sampler not in _SAMPLERS:
            raise ValueError(
                f"Unknown sampler. Expected one of {sorted(_SAMPLERS)} or a "
                f"`Sampler`. Received: sampler={sampler!r}"
            )
        return _SAMPLERS[sampler]()
    return sampler


def generate(
    next_logits: Callable[[np.ndarray, np.ndarray], np.ndarray],
    prompts: Sequence[Sequence[int]],
    max_length: int,
    *,
    vocabulary_size: int,
    max_sequence_length: int,
    sampler: str | Sampler = "top_p",
    seed: int | None = None,
    stop_token_ids: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Continues prompts with what a sampler makes of a model's logits.

    Args:
        next_logits: `(token_ids, lengths) -> logits`: what follows the first
            `lengths` tokens of each row of padded `(batch, length)` ids.
        prompts: token ids of each row; rows may differ in length.
        max_length: Length of the results, prompt included.
        vocabulary_size: Number of token ids.
        max_sequence_length: Greatest `max_length` that the model takes.
        sampler: name or `Sampler`.
        seed: Seed of the draws; None draws one.
        stop_token_ids: ids that end a row.

    Returns:
        List of int32 arrays, prompt included.

    Raises:
        ValueError: as `ReformerCausalLM.generate` says.
    """
    texts = _check(prompts, max_length, vocabulary_size, max_sequence_length)
    sampler = get_sampler(sampler)
    random = np.random.default_rng(seed)
    stops = set(() if stop_token_ids is None else stop_token_ids)
    unfinished = [text for text in texts if len(text) < max_length]
    while unfinished:
        lengths = np.array([len(text) for text in unfinished])
        padded = _pad(
            unfinished, min(_padded_length(lengths.max()), max_length)
        )
        tokens = sampler(next_logits(padded, lengths), random)
        for text, token in zip(unfinished, tokens, strict=True):
            text.append(int(token))
        unfinished = [
            text
            for text in unfinished
            if len(text) < max_length and text[-1] not in stops
        ]
    return [np.array(text, "int32") for text in texts]


def _check(prompts, max_length, vocabulary_size, longest) -> list[list[int]]:
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
        outside = [t for t in text if not 0 <= t < vocabulary_size]
        if outside:
            raise ValueError(
                "A prompt holds token ids outside the vocabulary. Expected "
                f"ids from 0 to {vocabulary_size - 1}. Received: "
                f"prompts[{index}] with {outside[:5]}"
            )
    return texts


def _padded_length(length: int) -> int:
    padded = _SHORTEST_PADDED
    while padded < length:
        padded *= 2
    return padded


def _pad(texts: list[list[int]], length: int) -> np.ndarray:
    padded = np.zeros((len(texts), length), "int32")
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    return padded
