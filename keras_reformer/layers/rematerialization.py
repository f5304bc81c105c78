"""Layers that `keras.RematScope` must not recompute."""

from keras_reformer.layers.mixins import LayerMixin


class RefusesRematerialization(LayerMixin):
    """Mixin of the layers that raise an error in a `keras.RematScope`.

    Keras would recompute them in the backward pass with other dropout masks
    and rotations, which gives the gradient of another function. Reversible
    stacks and `Recompute` run layers again with the same ones.
    """

    def rematerialized_call(self, fn, *args, **kwargs):
        if super().rematerialized_call(fn, *args, **kwargs) is fn:
            return fn
        raise _error(self)


def check_not_rematerialized(layer, args, kwargs):
    """Raises a `ValueError` if a layer was made in a `keras.RematScope`.

    Args:
        layer: Keras layer.
        args: arguments of its call.
        kwargs: keyword arguments of its call.
    """
    call = layer.call
    try:
        rematerialized = layer.rematerialized_call(call, *args, **kwargs)
    except AttributeError as error:
        # Keras 3.13 reads the mode of a scope where there is none.
        if (error.obj, error.name) != (None, "mode"):
            raise
    else:
        if rematerialized is not call:
            raise _error(layer)


def _error(layer):
    return ValueError(
        "Rematerialization runs layers again in the backward pass, where "
        "dropout masks and rotations would be drawn anew and gradients "
        f"be wrong. Expected layer `{layer.name}` and its model to be made "
        "outside of `keras.RematScope`. For memory that does not grow "
        "with depth use a `ReversibleSequence`, or `recompute=True` of "
        "the models; for a single layer `keras_reformer.Recompute`. "
        f"Received: {type(layer).__name__} in a `keras.RematScope`"
    )
