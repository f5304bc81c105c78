"""Layers that `keras.RematScope` must not recompute."""

from keras_reformer.layers.mixins import LayerMixin


class RefusesRematerialization(LayerMixin):
    """Mixin of the layers that raise an error in a `keras.RematScope`.

    Keras would recompute them in the backward pass with other dropout masks
    and rotations, which gives the gradient of another function. Reversible
    stacks recompute layers with the same ones.
    """

    def rematerialized_call(self, fn, *args, **kwargs):
        if super().rematerialized_call(fn, *args, **kwargs) is fn:
            return fn
        raise ValueError(
            "Rematerialization runs layers again in the backward pass, where "
            "dropout masks and rotations would be drawn anew and gradients "
            f"be wrong. Expected layer `{self.name}` and its model to be made "
            "outside of `keras.RematScope`. For memory that does not grow "
            "with depth use a `ReversibleSequence`, or `recompute=True` of "
            f"the models. Received: {type(self).__name__} in a "
            "`keras.RematScope`"
        )
