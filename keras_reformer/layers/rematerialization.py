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
            "Rematerialization runs layers again in the backward pass, where "
            "dropout masks and rotations would be drawn anew and gradients "
            f"be wrong. Expected layer `{self.name}` and its model to be made "
            "outside of `keras.RematScope`. For memory that does not grow "
            "with depth use a `ReversibleSequence`, or `recompute=True` of "
            f"the models. Received: {type(self).__name__} in a "
            "`keras.RematScope`"
        )
