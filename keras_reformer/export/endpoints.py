"""The endpoints of an exported model.

An endpoint is a function of named tensors. `endpoints` lists those of a
model; `serving_function` adds the checks and the padding that all share.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.export import requests
from keras_reformer.generation import Loop, Request, Sampler, get_sampler
from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
)
from keras_reformer.models.inputs import TokenInputs

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
    """

    name: str
    function: Callable[[Tensors], Tensors]
    specs: dict[str, tf.TensorSpec]
    per_position: bool = False
    warm: bool = True
    compilable: bool = True


class Limits(NamedTuple):
    """Limits of valid requests; None where unknown."""

    vocabulary_size: int | None = None
    max_length: int | None = None


class Sampling(NamedTuple):
    """Settings of `generate`; see `ReformerCausalLM.generate`."""

    sampler: str | Sampler = "top_p"
    stop_token_ids: tuple[int, ...] = ()


def endpoints(
    model: keras.Model,
    trainable: bool = False,
    sampling: Sampling = Sampling(),  # noqa: B008
) -> list[Endpoint]:
    """Lists the endpoints of a model; the first one is the default.

    Args:
        model: A task model, a backbone or another model of token ids.
        trainable: bool. Whether to add `train`.
        sampling: `Sampling`.
    """
    found = _serve(model)
    if isinstance(model, ReformerCausalLM | ReformerMaskedLM):
        found.append(_score(model))
    if isinstance(model, ReformerCausalLM):
        found.append(_generate(model, sampling))
    if trainable:
        found.append(_train(model))
    return found


def takes_mask(model: keras.Model) -> bool:
    """Whether a model takes a padding mask."""
    return isinstance(model, TokenInputs)


def limits_of(model: keras.Model) -> Limits:
    """The limits of a model's inputs."""
    backbone = getattr(model, "backbone", model)
    if not isinstance(backbone, ReformerBackbone):
        return Limits()
    return Limits(backbone.vocabulary_size, backbone.max_sequence_length)


def serving_function(
    endpoint: Endpoint,
    limits: Limits,
    length_buckets: tuple[int, ...] = (),
    jit_compile: bool = False,
):
    """Makes the function that is exported.

    It is returned untraced: saving would trace it again and write both.

    Requests are checked and padded outside of XLA's program, since XLA drops
    assertions and compiles a program for each shape.
    """
    compute = endpoint.function
    if jit_compile and endpoint.compilable:
        compute = tf.function(compute, autograph=False, jit_compile=True)

    # Callers of loaded functions use the names in the signature.
    @_taking(endpoint.specs)
    def answer(*tensors):
        request = dict(zip(endpoint.specs, tensors, strict=True))
        request = requests.checked(request, *limits)
        if not length_buckets:
            return compute(request)
        length = tf.shape(request["token_ids"])[1]
        answers = compute(requests.padded(request, length_buckets))
        return requests.cut(answers, length, endpoint.per_position)

    return tf.function(
        answer, input_signature=list(endpoint.specs.values()), autograph=False
    )


def example(
    endpoint: Endpoint, limits: Limits, batch: int, length: int
) -> dict[str, np.ndarray]:
    """A valid request: random token ids without padding."""
    draws = np.random.default_rng(length)
    ids = draws.integers(limits.vocabulary_size or 1, size=(batch, length))
    values = {
        "token_ids": ids,
        "labels": ids[:, ::-1],
        "lengths": np.full([batch], length),
        "max_length": np.full([batch], min(length + 1, limits.max_length or 1)),
        "seed": np.arange(batch),
        "temperature": np.ones([batch]),
    }
    if "text" in endpoint.specs:
        shape = endpoint.specs["text"].shape.as_list()
        sizes = zip((batch, length), shape, strict=False)
        values["text"] = np.full([size or free for free, size in sizes], "a")
    return {
        name: values[name].astype(spec.dtype.as_numpy_dtype)
        for name, spec in endpoint.specs.items()
    }


def _taking(names):
    """Names the arguments of a function of `*tensors` in its signature."""

    def sign(function):
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind) for name in names]
        function.__signature__ = inspect.Signature(parameters)
        return function

    return sign


def _serve(model) -> list[Endpoint]:
    """`serve` and, if the model takes a padding mask, `serve_padded`."""
    per_position = _is_per_position(model)
    compute = _outputs_of(model, training=False)
    if not takes_mask(model):
        return [Endpoint("serve", compute, _inputs_spec(model), per_position)]
    # One graph for both.
    compute = tf.function(compute, autograph=False)

    def serve(request):
        batch, length = tf.unstack(tf.shape(request["token_ids"]))
        return compute({"lengths": tf.fill([batch], length), **request})

    return [
        Endpoint("serve", serve, _specs(), per_position),
        Endpoint("serve_padded", compute, _specs("lengths"), per_position),
    ]


def _score(model) -> Endpoint:
    def score(request):
        inputs, labels, weights = _labelled(request)
        nats, count = model.log_likelihood(inputs, labels, weights)
        return {
            "log_likelihood": tf.cast(nats, tf.float32),
            "num_tokens": tf.cast(count, tf.int32),
        }

    return Endpoint("score", score, _labelled_specs(model))


def _train(model) -> Endpoint:
    if not isinstance(model, ReformerCausalLM | ReformerMaskedLM):
        specs = _specs("lengths") if takes_mask(model) else _specs()
        function = _outputs_of(model, training=True)
        return Endpoint(
            "train", function, specs, _is_per_position(model), warm=False
        )

    def train(request):
        loss = model.training_loss(*_labelled(request))
        return {"loss": tf.cast(loss, tf.float32)}

    return Endpoint("train", train, _labelled_specs(model), warm=False)


def _generate(model, sampling) -> Endpoint:
    loop = Loop(
        model.decoder(),
        get_sampler(sampling.sampler),
        tuple(sampling.stop_token_ids),
    )

    def generate(request):
        texts, lengths = loop.complete(
            request["token_ids"],
            request["lengths"],
            Request(
                request["max_length"],
                request["seed"],
                request["temperature"],
            ),
        )
        return {"token_ids": texts, "lengths": lengths}

    specs = _specs("lengths", "max_length", "seed", "temperature")
    return Endpoint("generate", generate, specs, compilable=False)


def _outputs_of(model, training):
    name = "hidden_states" if isinstance(model, ReformerBackbone) else "logits"

    def outputs_of(request):
        outputs = model(_model_inputs(request), training=training)
        if not isinstance(outputs, dict):
            outputs = {name: outputs}
        return {
            key: x if x.dtype == tf.string else tf.cast(x, tf.float32)
            for key, x in outputs.items()
        }

    return outputs_of


def _model_inputs(request):
    if "lengths" not in request:
        (inputs,) = request.values()
        return inputs
    token_ids = request["token_ids"]
    mask = tf.sequence_mask(request["lengths"], tf.shape(token_ids)[1])
    return {"token_ids": token_ids, "padding_mask": mask}


def _labelled(request):
    """Inputs, labels and weights in the form that losses take."""
    labels = request.get("labels")
    weights = None if labels is None else tf.cast(labels >= 0, tf.float32)
    return _model_inputs(request), labels, weights


def _labelled_specs(model) -> dict[str, tf.TensorSpec]:
    """The specs of `_labelled`; a causal model's labels are its tokens."""
    if isinstance(model, ReformerCausalLM):
        return _specs("lengths")
    return _specs("lengths", "labels")


def _specs(*further) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(
            (None, None) if name in ("token_ids", "labels") else (None,),
            tf.float32 if name == "temperature" else tf.int32,
            name=name,
        )
        for name in ("token_ids", *further)
    }


def _inputs_spec(model) -> dict[str, tf.TensorSpec]:
    """The spec of token ids, or of strings if the model looks them up."""
    symbolic = getattr(model, "inputs", None)
    if not symbolic or symbolic[0].dtype != "string":
        return _specs()
    return {"text": tf.TensorSpec(symbolic[0].shape, tf.string, name="text")}


def _is_per_position(model) -> bool:
    return not isinstance(model, ReformerClassifier)
