"""The endpoints of encoder-decoders: requests of two sequences."""

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.export.endpoint import (
    Endpoint,
    Limits,
    Sampling,
    Tensors,
    example_values,
    generate_endpoint,
)
from keras_reformer.models import ReformerSeq2Seq
from keras_reformer.models.pair_inputs import SIDES


def endpoints(
    model: keras.Model, trainable: bool, sampling: Sampling
) -> list[Endpoint]:
    """Lists the endpoints of an encoder-decoder; the first is the default."""
    encoder = getattr(model, "backbone", model).encoder
    limits = Limits(encoder.vocabulary_size, encoder.max_sequence_length)
    found = _serve(model)
    if isinstance(model, ReformerSeq2Seq):
        found += [_score(model), _generate(model, sampling)]
    if trainable:
        found.append(_train(model))
    return [endpoint._replace(encoder=limits) for endpoint in found]


def example(
    endpoint: Endpoint, limits: Limits, batch: int, length: int
) -> dict[str, np.ndarray]:
    """A valid request: random token ids without padding."""
    encoder = endpoint.encoder or limits
    longest = min(length, encoder.max_length or length)
    source = example_values(encoder, batch, longest)
    values = example_values(limits, batch, length)
    sides = {f"encoder_{name}": x for name, x in source.items()}
    sides |= {f"decoder_{name}": x for name, x in values.items()}
    values |= sides
    return {
        name: values[name].astype(spec.dtype.as_numpy_dtype)
        for name, spec in endpoint.specs.items()
    }


def _serve(model) -> list[Endpoint]:
    """`serve` and `serve_padded`."""
    name = "logits" if isinstance(model, ReformerSeq2Seq) else "hidden_states"

    def compute(request):
        outputs = model(_inputs(request), training=False)
        return {name: tf.cast(outputs, tf.float32)}

    # One graph for both.
    compute = tf.function(compute, autograph=False)

    def serve(request):
        lengths = {f"{side}_lengths": _whole(request, side) for side in SIDES}
        return compute({**lengths, **request})

    return [
        Endpoint("serve", serve, _specs()),
        Endpoint("serve_padded", compute, _specs("lengths")),
    ]


def _score(model) -> Endpoint:
    def score(request):
        nats, count = model.log_likelihood(_inputs(request))
        return {
            "log_likelihood": tf.cast(nats, tf.float32),
            "num_tokens": tf.cast(count, tf.int32),
        }

    return Endpoint("score", score, _specs("lengths"))


def _train(model) -> Endpoint:
    if isinstance(model, ReformerSeq2Seq):

        def train(request):
            loss = model.training_loss(_inputs(request))
            return {"loss": tf.cast(loss, tf.float32)}

    else:

        def train(request):
            outputs = model(_inputs(request), training=True)
            return {"hidden_states": tf.cast(outputs, tf.float32)}

    return Endpoint("train", train, _specs("lengths"), warm=False)


def _generate(model, sampling) -> Endpoint:
    def source_of(request):
        inputs = _inputs(request)
        return inputs["encoder_token_ids"], inputs["encoder_padding_mask"]

    specs = _specs("lengths")
    return generate_endpoint(model, sampling, specs, "decoder_", source_of)


def _inputs(request: Tensors) -> Tensors:
    """A request as the model takes it."""
    inputs = {}
    for side in SIDES:
        token_ids = request[f"{side}_token_ids"]
        mask = tf.sequence_mask(
            request[f"{side}_lengths"], tf.shape(token_ids)[1]
        )
        inputs[f"{side}_token_ids"] = token_ids
        inputs[f"{side}_padding_mask"] = mask
    return inputs


def _whole(request, side) -> tf.Tensor:
    """The lengths of rows without padding."""
    batch, length = tf.unstack(tf.shape(request[f"{side}_token_ids"]))
    return tf.fill([batch], length)


def _specs(*further) -> dict[str, tf.TensorSpec]:
    names = [
        f"{side}_{name}" for side in SIDES for name in ("token_ids", *further)
    ]
    return {
        name: tf.TensorSpec(
            (None, None) if name.endswith("token_ids") else (None,),
            tf.int32,
            name=name,
        )
        for name in names
    }
