"""What endpoints are made of."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_reformer.generation import Sampler

Tensors = dict[str, tf.Tensor]


class Endpoint(NamedTuple):
    """A function of named tensors, before checks, padding and tracing.

    Attributes:
        name: of the signature.
        function: dict of tensors to dict of tensors. Where lengths are in
            buckets it gets `lengths`, whether or not the signature has them.
        specs: the tensors of a request, by name and in the order of the
            traced function's arguments.
        per_position: whether outputs have the length of `token_ids`, so that
            the padding of a length bucket must be cropped.
        warm: whether there are warm-up requests for it.
        compilable: whether XLA can compile it: shapes must not depend on the
            values of a request.
        encoder: `Limits` of the encoder's tokens, where a request has two
            sequences: `encoder_token_ids` and `decoder_token_ids`.
    """

    name: str
    function: Callable[[Tensors], Tensors]
    specs: dict[str, tf.TensorSpec]
    per_position: bool = False
    warm: bool = True
    compilable: bool = True
    encoder: "Limits | None" = None


class Limits(NamedTuple):
    """Limits of valid requests; None where unknown."""

    vocabulary_size: int | None = None
    max_length: int | None = None


class Sampling(NamedTuple):
    """Settings of `generate`; see `ReformerCausalLM.generate`."""

    sampler: str | Sampler = "top_p"
    stop_token_ids: tuple[int, ...] = ()


def example_values(
    limits: Limits, batch: int, length: int
) -> dict[str, np.ndarray]:
    """Valid values of whatever a signature asks for."""
    draws = np.random.default_rng(length)
    ids = draws.integers(limits.vocabulary_size or 1, size=(batch, length))
    return {
        "token_ids": ids,
        "labels": ids[:, ::-1],
        "lengths": np.full([batch], length),
        "max_length": np.full([batch], min(length + 1, limits.max_length or 1)),
        "seed": np.arange(batch),
        "temperature": np.ones([batch]),
    }
