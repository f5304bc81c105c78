"""Cached decoding, token by token: the methods of a layer.

A layer that mixes positions has these methods besides `call`:

    prefill(inputs, mask, capacity) -> outputs, cache
        `call` at inference, and a cache for `capacity` positions (an int or a
        scalar tensor). `inputs` is `(batch, length, dim)`; `mask` is None or
        a boolean `(batch, length)` that is True at valid tokens, which come
        first. A layer that attends to a context takes `context` and
        `context_mask` too, as in `call`, and keeps in its cache what it needs
        of them.
    decode(inputs, cache, positions, constants=None) -> outputs, cache
        Outputs for one more token of each row, and the cache with it.
        `inputs` is `(batch, 1, dim)`, `positions` int32 `(batch,)`, and
        `cache` what `prefill` or `decode` returned.
    decode_constants() -> constants
        Tensors that are equal in all steps, for a loop to compute once; a
        step computes them where it gets None.

Any other layer is taken to be position-wise and is just called.
"""

from keras_reformer.layers.stateless import accepted_by, call_branch, given


def prefill(layer, inputs, mask, capacity, **context):
    """A layer's outputs for prompts, and its cache."""
    if hasattr(layer, "prefill"):
        options = accepted_by(layer.prefill, given(**context))
        return layer.prefill(inputs, mask, capacity, **options)
    return call_branch(layer, inputs, mask, False, **context), ()


def decode(layer, inputs, cache, positions, constants):
    """A layer's outputs for one more position, and its cache."""
    if hasattr(layer, "decode"):
        return layer.decode(inputs, cache, positions, constants)
    return call_branch(layer, inputs, None, False), cache


def constants(layer):
    """A layer's tensors that are equal in all steps, or None."""
    if hasattr(layer, "decode_constants"):
        return layer.decode_constants()
    return None


def check_causal(layer):
    """Raises a `ValueError` if a layer is not causal."""
    if not layer.causal:
        raise ValueError(
            "Only causal attention can be decoded token by token: in any "
            "other, earlier outputs would change. Expected causal=True. "
            f"Received: causal=False in layer `{layer.name}`"
        )
