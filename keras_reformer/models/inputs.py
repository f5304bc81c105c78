"""Inputs of the models: a dict, of which the mask may be left out."""

import keras


def token_inputs():
    """Symbolic inputs of every model here."""
    return {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input(
            (None,), dtype="bool", name="padding_mask", optional=True
        ),
    }


def complete(inputs):
    """Turns what a user may pass into the dict that the models are made of.

    Args:
        inputs: dict with `token_ids` and perhaps `padding_mask`, or token
            ids alone.

    Returns:
        dict of both; the mask is None where all tokens are valid.
    """
    if not isinstance(inputs, dict):
        inputs = {"token_ids": inputs}
    unknown = set(inputs) - {"token_ids", "padding_mask"}
    if unknown or "token_ids" not in inputs:
        raise ValueError(
            "Received inputs that the model does not take. Expected "
            "`token_ids` of shape `(batch, length)`, alone or in a dict with "
            f"`padding_mask`. Received: keys={sorted(inputs)}"
        )
    return {
        "token_ids": inputs["token_ids"],
        "padding_mask": inputs.get("padding_mask"),
    }


class TokenInputs:
    """Lets a Functional model take its inputs in each of the ways above."""

    # The Functional model's own spec would refuse a missing mask.
    input_spec = None

    def call(self, inputs, training=None, mask=None):
        inputs = complete(inputs)
        shape = inputs["token_ids"].shape
        if len(shape) != 2:
            raise ValueError(
                "Token ids must have two axes. Expected shape `(batch, "
                f"length)`. Received: token_ids.shape={tuple(shape)}"
            )
        return super().call(inputs, training=training)
