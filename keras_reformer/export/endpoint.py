"""What endpoints are made of."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_reformer.generation import Loop, Request, Sampler, get_sampler

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


def generate_endpoint(
    model,
    sampling: Sampling,
    specs: dict[str, tf.TensorSpec],
    prefix: str = "",
    source_of: Callable[[Tensors], tuple] = lambda request: (),
) -> Endpoint:
    """The whole loop of `generate`.

    Args:
        model: a model with a `decoder`.
        sampling: `Sampling`.
        specs: of prompts and their lengths, and of an encoder's.
        prefix: before `token_ids` and `lengths`, the prompts' names.
        source_of: function of a request to what an encoder takes.
    """
    loop = Loop(
        model.decoder(),
        get_sampler(sampling.sampler),
        tuple(sampling.stop_token_ids),
    )

    def generate(request):
        texts, lengths = loop.complete(
            request[f"{prefix}token_ids"],
            request[f"{prefix}lengths"],
            Request(
                request["max_length"],
                request["seed"],
                request["temperature"],
            ),
            source_of(request),
        )
        return {"token_ids": texts, "lengths": lengths}

    settings = {
        "max_length": tf.int32,
        "seed": tf.int32,
        "temperature": tf.float32,
    }
    specs = specs | {
        name: tf.TensorSpec((None,), dtype, name=name)
        for name, dtype in settings.items()
    }
    return Endpoint("generate", generate, specs, compilable=False)


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
