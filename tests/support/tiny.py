"""Models that a test can afford, and data for them."""

import keras
import numpy as np

from keras_reformer.models import ReformerBackbone, ReformerCausalLM

VOCABULARY = 11
LONGEST = 100
SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": LONGEST,
    "chunk_length": 8,
    "num_hashes": 2,
    "seed": 0,
}
# Padded as the published model pads.
PUBLISHED = {
    **SIZES,
    "scope": "chunk",
    "wrap": True,
    "causal": False,
    "chunk_length": 8,
    "local_chunk_length": 6,
    "num_buckets": 4,
}
# What is not about attention is seen in one local layer as well, sooner.
SMALLEST = {"num_layers": 1, "attention_layers": ("local",)}


def make_backbone(**options):
    """Returns a backbone of two layers, one local and one LSH.

    Equal arguments give equal initial weights.
    """
    keras.utils.set_random_seed(3)
    return ReformerBackbone(**{**SIZES, **options})


def make_model(**options):
    """Returns a causal language model around such a backbone."""
    keras.utils.set_random_seed(3)
    return ReformerCausalLM(**{**SIZES, **options})


def make_spread_model(**options):
    """Returns one whose weights are large enough to see every influence."""
    model = make_model(**options)
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        spread = 0.3 * rng.normal(size=variable.shape)
        variable.assign_add(spread.astype(variable.dtype))
    return model


def make_ids(batch=4, length=37, seed=0):
    """Returns token ids of shape `(batch, length)`."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, VOCABULARY, (batch, length)).astype("int32")


def make_mask(ids, seed=0):
    """Returns a mask with valid tokens first, of another length each row."""
    lengths = np.random.default_rng(seed).integers(
        2, ids.shape[1], (len(ids), 1)
    )
    return np.arange(ids.shape[1]) < lengths


def numpy_nats(logits, labels):
    """Returns `-log p` of the labels, in float64."""
    logits = np.asarray(logits, "float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, np.asarray(labels)[..., None], -1)[..., 0]


def numpy_results(logits, labels, weights):
    """Returns loss, accuracy and bits per byte as `evaluate` names them."""
    nats = numpy_nats(logits, labels)
    correct = np.argmax(logits, -1) == labels
    weights = np.broadcast_to(weights, nats.shape).astype("float64")
    loss = (nats * weights).sum() / weights.sum()
    return {
        "loss": loss,
        "accuracy": (correct * weights).sum() / weights.sum(),
        "bits_per_byte": loss / np.log(2.0),
    }


def shifted(ids, mask=None):
    """Returns labels and weights that `fit(x)` makes of its inputs."""
    valid = np.ones(ids.shape) if mask is None else mask.astype("float64")
    following = np.concatenate([valid[:, 1:], 0 * valid[:, :1]], axis=1)
    return np.roll(ids, -1, axis=1), valid * following


def fit_once(model, *data, optimizer=None, **options):
    """Compiles a model for eager steps, fits it once, returns its weights."""
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    model.compile(optimizer, run_eagerly=True)
    model.fit(*data, verbose=0, shuffle=False, **options)
    return values(model)


def values(model):
    """Returns copies of all variables' values, seeds included."""
    return [keras.ops.convert_to_numpy(v).copy() for v in model.variables]
