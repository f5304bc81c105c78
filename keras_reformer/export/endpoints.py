"""The endpoints of an exported model.

An endpoint is a function of named tensors. `endpoints` lists those of a
model; `serving_function` adds the checks and the padding that all share.
"""

import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.export import pair_endpoints, requests
from keras_reformer.export.endpoint import (
    Endpoint,
    Limits,
    Sampling,
    example_values,
    generate_endpoint,
)
from keras_reformer.models import (
    ReformerBackbone,
    ReformerCausalLM,
    ReformerClassifier,
    ReformerMaskedLM,
    ReformerSeq2SeqBackbone,
)
from keras_reformer.models.inputs import TokenInputs
from keras_reformer.models.pair_inputs import PairInputs


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
    if isinstance(model, PairInputs):
        return pair_endpoints.endpoints(model, trainable, sampling)
    found = _serve(model)
    if isinstance(model, ReformerCausalLM | ReformerMaskedLM):
        found.append(_score(model))
    if isinstance(model, ReformerCausalLM):
        found.append(generate_endpoint(model, sampling, _specs("lengths")))
    if trainable:
        found.append(_train(model))
    return found


def takes_mask(model: keras.Model) -> bool:
    """Whether a model takes a padding mask of its one sequence."""
    return isinstance(model, TokenInputs) and not isinstance(model, PairInputs)


def limits_of(model: keras.Model) -> Limits:
    """The limits of a model's inputs."""
    backbone = getattr(model, "backbone", model)
    if not isinstance(backbone, ReformerBackbone | ReformerSeq2SeqBackbone):
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
        if endpoint.encoder is None:
            request = requests.checked(request, *limits)
        else:
            request = requests.checked_pair(request, endpoint.encoder, limits)
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
    if endpoint.encoder is not None:
        return pair_endpoints.example(endpoint, limits, batch, length)
    values = example_values(limits, batch, length)
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
            tf.int32,
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
