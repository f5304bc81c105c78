"""How layers decode token by token.

A layer that looks at other positions has these methods besides `call`:

    prefill(inputs, mask, capacity) -> outputs, cache
        As `call` at inference, and a cache of what it saw, with room for
        `capacity` positions. Valid positions come first.
    decode(inputs, cache, positions, constants=None) -> outputs, cache
        Outputs for one more position of each row, inputs `(batch, 1, dim)`,
        at int32 `(batch,)` positions.
    decode_constants() -> constants
        What is the same in all steps, for a loop to compute once.

Any other layer is taken to treat each position by itself and is just called.
"""

from keras_reformer.layers.stateless import call_branch


def prefill(layer, inputs, mask, capacity):
    """A layer's outputs for prompts, and its cache."""
    if hasattr(layer, "prefill"):
        return layer.prefill(inputs, mask, capacity)
    return call_branch(layer, inputs, mask, False), ()


def decode(layer, inputs, cache, positions, constants):
    """A layer's outputs for one more position, and its cache after."""
    if hasattr(layer, "decode"):
        return layer.decode(inputs, cache, positions, constants)
    return call_branch(layer, inputs, None, False), cache


def constants(layer):
    """What a layer's steps have in common, or nothing."""
    if hasattr(layer, "decode_constants"):
        return layer.decode_constants()
    return None


def check_causal(layer):
    """Refuses to decode where earlier tokens would see later ones."""
    if not layer.causal:
        raise ValueError(
            "Only causal attention can be decoded token by token: in any "
            "other, earlier outputs would change. Expected causal=True. "
            f"Received: causal=False in layer `{layer.name}`"
        )
