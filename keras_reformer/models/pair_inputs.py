"""Inputs of encoder-decoder models: two sequences of tokens and their masks."""

from typing import Any

import keras

from keras_reformer.models.inputs import (
    TokenInputs,
    complete,
    ones_like_mask,
    token_inputs,
)
from keras_reformer.ops.vocabulary import check_token_ids

SIDES = ("encoder", "decoder")
NAMES = tuple(f"{side}_{name}" for side in SIDES for name in token_inputs())


class PairInputs(TokenInputs):
    """Makes a Functional model take an encoder's and a decoder's tokens.

    As KerasHub's encoder-decoder models, it takes a dict of
    `encoder_token_ids`, `encoder_padding_mask`, `decoder_token_ids` and
    `decoder_padding_mask`; masks may be left out.
    """

    def symbolic_inputs(self):
        return {
            f"{side}_{name}": keras.Input(
                x.shape[1:], dtype=x.dtype, name=f"{side}_{name}", optional=True
            )
            if name == "padding_mask"
            else keras.Input(x.shape[1:], dtype=x.dtype, name=f"{side}_{name}")
            for side in SIDES
            for name, x in token_inputs().items()
        }

    def complete_inputs(self, inputs, mask=None):
        """Checked inputs, a dict of all four; a mask may be None."""
        inputs = complete_pair(inputs, mask)
        _check_lengths(inputs, self.longest_inputs())
        return inputs

    def with_masks(self, inputs):
        masks = {
            f"{side}_padding_mask": ones_like_mask(inputs[f"{side}_token_ids"])
            for side in SIDES
        }
        return {**masks, **inputs}

    def longest_inputs(self):
        """The greatest lengths of the encoder's and the decoder's tokens."""
        return [part.max_sequence_length for part in self._parts()]

    def inputs_of_shape(self, inputs):
        inputs = self.complete_inputs(inputs)
        return {
            f"{side}_{name}": keras.KerasTensor(
                inputs[f"{side}_token_ids"].shape, dtype
            )
            for side in SIDES
            for name, dtype in (
                ("token_ids", "int32"),
                ("padding_mask", "bool"),
            )
        }

    def check_ids(self, inputs):
        for side, size in zip(SIDES, self.vocabulary_sizes(), strict=True):
            name = f"{side}_token_ids"
            mask = inputs[f"{side}_padding_mask"]
            check_token_ids(inputs[name], mask, size, name)

    def vocabulary_sizes(self):
        """Numbers of token ids of the encoder and the decoder."""
        return [part.vocabulary_size for part in self._parts()]

    def _parts(self):
        backbone: Any = getattr(self, "backbone", self)
        return backbone.encoder, backbone


def side_of(inputs, side):
    """One side's `token_ids` and `padding_mask` of complete inputs.

    Args:
        inputs: what `complete_pair` returns.
        side: `"encoder"` or `"decoder"`.
    """
    return {name: inputs[f"{side}_{name}"] for name in token_inputs()}


def complete_pair(inputs, mask=None):
    """Brings inputs into one form: a dict with all of `NAMES`.

    Args:
        inputs: dict of `NAMES`, of which masks may be left out or None.
        mask: Keras's masks of the inputs, in their structure.

    Raises:
        ValueError: if tokens are missing, or a tensor does not fit.
    """
    keys = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
    given = inputs if isinstance(inputs, dict) else {}
    needed = [f"{side}_token_ids" for side in SIDES]
    missing = [name for name in needed if given.get(name) is None]
    if missing or set(given) - set(NAMES):
        raise ValueError(
            "An encoder-decoder takes two sequences of tokens. Expected a "
            "dict of `encoder_token_ids` and `decoder_token_ids`, int `(batch, "
            "length)`, perhaps with `encoder_padding_mask` and "
            f"`decoder_padding_mask`. Received: inputs={keys}"
        )
    masks = mask if isinstance(mask, dict) else {}
    found = {}
    for side, name in zip(SIDES, needed, strict=True):
        tokens = {"token_ids": given[name]}
        tokens["padding_mask"] = given.get(f"{side}_padding_mask")
        whole = complete(tokens, masks.get(name))
        found.update({f"{side}_{key}": x for key, x in whole.items()})
    return found


def _check_lengths(inputs, longest):
    for side, most in zip(SIDES, longest, strict=True):
        name = f"{side}_token_ids"
        shape = tuple(inputs[name].shape)
        if shape[1] is not None and not 1 <= shape[1] <= most:
            raise ValueError(
                f"The {side} takes from 1 to {most} tokens, for which it was "
                f"made (max_sequence_length={most}). Received: "
                f"{name}.shape={shape}"
            )
