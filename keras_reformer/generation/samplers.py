"""Samplers: from the logits of a step to the next token of each row.

A sampler holds settings only. Its draws depend on a row's seed and position
alone, so the same request gets the same text: eagerly, in a graph, compiled,
from a SavedModel, and in any batch.
"""

import numbers
from typing import Any, NamedTuple

import keras

from keras_reformer.layers import checks
from keras_reformer.ops.random import uniform

# The log-probability of impossible tokens, finite also summed over steps.
_NEVER = -1e30


class Choice(NamedTuple):
    """The result of a sampler's step.

    Attributes:
        tokens: int32 `(rows,)`.
        parents: int32 `(rows,)`, the rows that the tokens continue, or None
            if each row continues itself.
        state: the sampler's state for the next step.
    """

    tokens: Any
    parents: Any
    state: Any


class Sampler:
    """Draws from the whole distribution; the base of all samplers.

    Args:
        temperature: float. Logits are divided by it. Defaults to `1.0`.
        repetition_penalty: float. Logits of tokens that a row already
            contains are divided by it if positive, and multiplied if
            negative. Defaults to `1.0`.

    Reference: the penalty is that of [Keskar et al.,
    2019](https://arxiv.org/abs/1909.05858), section 4.1.
    """

    # Number of rows that continue each prompt.
    copies = 1

    def __init__(
        self, temperature: float = 1.0, repetition_penalty: float = 1.0
    ):
        self.temperature = _positive("temperature", temperature)
        self.repetition_penalty = _positive(
            "repetition_penalty", repetition_penalty
        )

    def start(self, prompts) -> Any:
        """The sampler's initial state, a structure of tensors."""
        return ()

    def choose(self, logits, seed, positions, finished, state) -> Choice:
        """The next token of each row.

        Args:
            logits: float32 `(rows, vocabulary_size)`.
            seed: int32 `(rows,)`.
            positions: int32 `(rows,)`. Positions of the new tokens.
            finished: bool `(rows,)`. Rows whose texts are complete.
            state: the state of the previous step.
        """
        probabilities = keras.ops.softmax(logits / self.temperature)
        tokens = _draw(self.restrict(probabilities), seed, positions)
        return Choice(tokens, None, state)

    def restrict(self, probabilities):
        """Sets the probabilities of excluded tokens to zero.

        Args:
            probabilities: float32 `(rows, vocabulary_size)`.

        Returns:
            Tensor of the same shape, whose rows need not sum to one.
        """
        return probabilities

    def get_config(self):
        """The constructor's arguments."""
        return {
            "temperature": self.temperature,
            "repetition_penalty": self.repetition_penalty,
        }

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self):
        return hash((type(self), *sorted(vars(self).items())))


class RandomSampler(Sampler):
    """Draws from the whole distribution; see `Sampler`."""


class GreedySampler(Sampler):
    """Takes the most probable token, the first of equals; see `Sampler`."""

    def choose(self, logits, seed, positions, finished, state):
        tokens = keras.ops.cast(keras.ops.argmax(logits, axis=-1), "int32")
        return Choice(tokens, None, state)


class TopKSampler(Sampler):
    """Draws among the `k` most probable tokens.

    Args:
        k: int. Defaults to `5`.
        temperature: float. Defaults to `1.0`.
        repetition_penalty: float. Defaults to `1.0`.
    """

    def __init__(self, k: int = 5, temperature=1.0, repetition_penalty=1.0):
        super().__init__(temperature, repetition_penalty)
        self.k = checks.positive_int("k", k)

    def restrict(self, probabilities):
        # Ranks and no threshold: ties must not let more than k through.
        ranks = _ranks(_order(probabilities))
        return keras.ops.where(ranks < self.k, probabilities, 0.0)

    def get_config(self):
        return {**super().get_config(), "k": self.k}


class TopPSampler(Sampler):
    """Draws among the most probable tokens that together reach `p`.

    Args:
        p: float in `(0, 1]`. Defaults to `0.9`.
        temperature: float. Defaults to `1.0`.
        repetition_penalty: float. Defaults to `1.0`.

    Reference: [Holtzman et al., 2019](https://arxiv.org/abs/1904.09751).
    """

    def __init__(self, p: float = 0.9, temperature=1.0, repetition_penalty=1.0):
        super().__init__(temperature, repetition_penalty)
        self.p = _positive("p", p)
        if p > 1:
            raise ValueError(f"`p` must be in `(0, 1]`. Received: p={p}")

    def restrict(self, probabilities):
        order = _order(probabilities)
        ranked = keras.ops.take_along_axis(probabilities, order, axis=-1)
        before = keras.ops.cumsum(ranked, axis=-1) - ranked
        ranks = _ranks(order)
        before = keras.ops.take_along_axis(before, ranks, axis=-1)
        # Rounding must not exclude the most probable token.
        kept = (before < self.p) | (ranks == 0)
        return keras.ops.where(kept, probabilities, 0.0)

    def get_config(self):
        return {**super().get_config(), "p": self.p}


class BeamSampler(Sampler):
    """Keeps the `num_beams` most probable continuations of each prompt.

    The most probable one of them is the result. A complete continuation
    keeps its probability.

    Args:
        num_beams: int. Defaults to `5`.
        temperature: float. Defaults to `1.0`.
        repetition_penalty: float. Defaults to `1.0`.
    """

    def __init__(
        self, num_beams: int = 5, temperature=1.0, repetition_penalty=1.0
    ):
        super().__init__(temperature, repetition_penalty)
        self.num_beams = checks.positive_int("num_beams", num_beams)

    @property
    def copies(self):
        return self.num_beams

    def start(self, prompts):
        # All beams are equal to the prompt, so only one may continue.
        first = keras.ops.arange(self.num_beams) == 0
        scores = keras.ops.where(first, 0.0, _NEVER)
        return keras.ops.tile(scores[None], (prompts, 1))

    def choose(self, logits, seed, positions, finished, state):
        vocabulary_size = logits.shape[-1]
        scores = keras.ops.log_softmax(logits / self.temperature)
        # A complete beam has one continuation, at no cost.
        stay = keras.ops.arange(vocabulary_size) == 0
        ended = keras.ops.where(stay, 0.0, _NEVER)
        scores = keras.ops.where(finished[:, None], ended, scores)
        scores = keras.ops.reshape(state, (-1, 1)) + scores
        scores = keras.ops.reshape(
            scores, (-1, self.num_beams * vocabulary_size)
        )
        best, index = keras.ops.top_k(scores, self.num_beams)
        prompts = keras.ops.arange(keras.ops.shape(index)[0], dtype="int32")
        parents = prompts[:, None] * self.num_beams + index // vocabulary_size
        tokens, parents = (
            keras.ops.reshape(keras.ops.cast(x, "int32"), (-1,))
            for x in (index % vocabulary_size, parents)
        )
        scores = keras.ops.reshape(best, (-1, self.num_beams))
        return Choice(tokens, parents, scores)

    def get_config(self):
        return {**super().get_config(), "num_beams": self.num_beams}


_SAMPLERS = {
    "greedy": GreedySampler,
    "random": RandomSampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
    "beam": BeamSampler,
}


def get_sampler(sampler) -> Any:
    """A sampler by name, or the sampler itself.

    Args:
        sampler: `"greedy"`, `"random"`, `"top_k"`, `"top_p"`, `"beam"`, or an
            object to call as KerasHub calls its samplers.

    Raises:
        ValueError: if there is no such sampler.
    """
    if isinstance(sampler, str) and sampler in _SAMPLERS:
        return _SAMPLERS[sampler]()
    is_sampler = callable(sampler) or isinstance(sampler, Sampler)
    if not is_sampler or isinstance(sampler, type):
        raise ValueError(
            f"Unknown sampler. Expected one of {sorted(_SAMPLERS)}, or an "
            "instance of `keras_reformer.generation.Sampler` or of one of "
            f"KerasHub's. Received: sampler={sampler!r}"
        )
    return sampler


def settings_of(sampler):
    """The settings that traces of a sampler depend on, to be compared."""
    if isinstance(sampler, Sampler):
        return [type(sampler), vars(sampler)]
    # The sampler may be a method.
    owner = getattr(sampler, "__self__", sampler)
    return [sampler, getattr(owner, "__dict__", None)]


def _draw(weights, seed, positions):
    """Draws a token of each row with probabilities proportional to weights."""
    cumulative = keras.ops.cumsum(weights, axis=-1)
    share = uniform(keras.ops.zeros(2, "int32"), seed, positions)
    reached = cumulative > (share * cumulative[:, -1])[:, None]
    return keras.ops.cast(keras.ops.argmax(reached, axis=-1), "int32")


def _order(probabilities):
    """Each row's tokens by decreasing probability; a stable order."""
    return keras.ops.argsort(-probabilities, axis=-1)


def _ranks(order):
    """The rank of each token in an order."""
    return keras.ops.argsort(order, axis=-1)


def _positive(name, value):
    number: Any = value
    if not isinstance(value, numbers.Real) or not number > 0:
        raise ValueError(
            f"`{name}` must be a positive number. Received: {name}={value!r}"
        )
    return value
