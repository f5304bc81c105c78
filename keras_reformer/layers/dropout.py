import keras

from keras_reformer.layers import checks
from keras_reformer.layers.rematerialization import RefusesRematerialization
from keras_reformer.layers.tracking import seed_state
from keras_reformer.ops.dropout import dropout


@keras.saving.register_keras_serializable(package="keras_reformer")
class Dropout(RefusesRematerialization, keras.layers.Dropout):
    """`keras.layers.Dropout` with a counter-based mask that is not stored.

    A mask element is an integer hash of its index and the call's seed, which
    XLA fuses into the multiplication: in reversible stacks memory does not
    grow with the number of dropout layers.

    Args:
        rate: float in `[0, 1)`. Fraction of inputs to set to zero; the
            others are scaled by `1 / (1 - rate)`.
        shared_axes: int or tuple of ints. Axes along which the mask is
            broadcast, e.g. `1` to drop whole features of a sequence. Defaults
            to `None`.
        seed: int. Defaults to `None`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of any shape.
        training: bool. Whether to apply dropout.

    Returns:
        Float tensor of the inputs' shape.

    Raises:
        ValueError: if `rate` is not in `[0, 1)`.

    Example:

    >>> layer = keras_reformer.Dropout(0.5, seed=0)
    >>> layer(keras.ops.ones((2, 3, 4)), training=True).shape
    TensorShape([2, 3, 4])
    """

    def __init__(self, rate, shared_axes=None, seed=None, **kwargs):
        if kwargs.get("noise_shape") is not None:
            raise ValueError(
                "`noise_shape` is not taken here. Expected `shared_axes`, the "
                "axes along which one draw counts for all. Received: "
                f"noise_shape={kwargs['noise_shape']}"
            )
        super().__init__(
            checks.rate("rate", rate), seed=checks.seed("seed", seed), **kwargs
        )
        if isinstance(shared_axes, int):
            shared_axes = (shared_axes,)
        self.shared_axes = _check_axes(shared_axes)
        self._seed_state = seed_state(self)

    def call(self, inputs, training=False):
        checks.numeric("inputs", inputs)
        if not training or not self.rate:
            return inputs
        checks.floating("inputs", inputs)
        return dropout(
            inputs,
            self.rate,
            self.seed_generator.next(),
            self._axes(inputs.shape),
        )

    def _axes(self, shape):
        axes, rank = tuple(self.shared_axes or ()), len(shape)
        if not all(-rank <= axis < rank for axis in axes):
            raise ValueError(
                "`shared_axes` must be axes of the inputs. Expected integers "
                f"from {-rank} to {rank - 1} for inputs of shape {shape}. "
                f"Received: shared_axes={self.shared_axes}"
            )
        return axes

    def get_config(self):
        config = {**super().get_config(), "shared_axes": self.shared_axes}
        # Noise shapes are what `shared_axes` replaces.
        config.pop("noise_shape", None)
        return config


def _check_axes(axes):
    """Returns a list of ints, or None."""
    if axes is None:
        return None
    if not isinstance(axes, (list, tuple)):
        checks.integer("shared_axes", axes)
    return [checks.integer("shared_axes", axis) for axis in axes]
