"""What `keras.RematScope` may not do with layers that draw or decide."""


class RefusesRematerialization:
    """Keeps Keras from running a layer's call again in the backward pass.

    The second run would draw other dropout masks and rotations, and its
    gradient would be that of another function. Layers here rebuild what they
    can by themselves, with what was drawn.
    """

    def rematerialized_call(self, fn, *args, **kwargs):
        if super().rematerialized_call(fn, *args, **kwargs) is fn:
            return fn
        raise ValueError(
            "Rematerialization would draw dropout masks and rotations anew in "
            f"the backward pass of layer `{self.name}`, whose gradients would "
            "be wrong. Expected the layer to be made outside of "
            "`keras.RematScope`. For memory that does not grow with depth put "
            "it into a `ReversibleSequence`, or use `recompute=True` of the "
            f"models. Received: {type(self).__name__} in a `keras.RematScope`"
        )
