"""The mask of a call's inputs.

In a call with one tensor argument Keras fills in the argument `mask`. In a
call with several, such as `inputs` and `segment_ids`, it fills in
`<name>_mask` of each instead. A layer that takes both kinds of calls has the
arguments `mask` and `inputs_mask`.
"""


def given_mask(mask, attached):
    """The mask that a call was given, else the one attached to its inputs.

    Args:
        mask: the argument `mask`, or None.
        attached: the argument that Keras fills in, or None.
    """
    return attached if mask is None else mask


def one_mask(mask):
    """The mask of a pair of streams, for which Keras passes a pair."""
    if isinstance(mask, (list, tuple)):
        return next((each for each in mask if each is not None), None)
    return mask
