"""Encoder-decoders that a test can afford, and data for them."""

import keras
import numpy as np
import tensorflow as tf

from keras_reformer.models import ReformerSeq2Seq
from tests.support import stepwise

VOCABULARY, LONGEST = 11, 64
SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": LONGEST,
    "attention_layers": ("local",),
    "chunk_length": 8,
    "num_hashes": 2,
    "seed": 0,
}
SOURCES = [[1, 2, 3, 4, 5], [3, 4], [5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4]]
STARTS = [[0], [0, 3], [0]]
REQUEST = {"encoder_token_ids": SOURCES, "decoder_token_ids": STARTS}


def make_model(**options):
    """An encoder-decoder whose weights show every influence."""
    keras.utils.set_random_seed(3)
    model = ReformerSeq2Seq(**{**SIZES, **options})
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        spread = 0.3 * rng.normal(size=variable.shape)
        variable.assign_add(spread.astype(variable.dtype))
    return model


def make_inputs(batch=4, source=19, target=13, seed=0, masks=True):
    """Random token ids of both sides, and masks with valid tokens first."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for side, length in (("encoder", source), ("decoder", target)):
        ids = rng.integers(0, VOCABULARY, (batch, length)).astype("int32")
        inputs[f"{side}_token_ids"] = ids
        if masks:
            lengths = rng.integers(2, length, (batch, 1))
            inputs[f"{side}_padding_mask"] = np.arange(length) < lengths
    return inputs


def greedily(model, request, length):
    """Texts of full passes over each row alone."""
    call, texts = stepwise.graph(lambda inputs: model(inputs)), []
    longest = max(map(len, request["encoder_token_ids"]))
    for source, start in zip(
        request["encoder_token_ids"], request["decoder_token_ids"], strict=True
    ):
        text = [int(token) for token in start]
        while len(text) < length:
            # What is behind a token has no influence on a causal decoder:
            # one shape, and so one trace, for all lengths.
            padded = text + [0] * (length - len(text))
            logits = call(
                {
                    "encoder_token_ids": tf.constant(
                        [source + [0] * (longest - len(source))]
                    ),
                    "encoder_padding_mask": tf.sequence_mask(
                        [len(source)], longest
                    ),
                    "decoder_token_ids": tf.constant([padded]),
                }
            )
            text.append(int(np.argmax(logits[0, len(text) - 1])))
        texts.append(text)
    return texts
