import inspect

import keras

from keras_reformer.layers import checks, decoding
from keras_reformer.layers.composite_layer import CompositeLayer
from keras_reformer.layers.rematerialization import check_not_rematerialized
from keras_reformer.layers.stateless import assign_changes, pure_function
from keras_reformer.layers.sublayers import adopt
from keras_reformer.ops.reversible.checkpoint import run_checkpointed


@keras.saving.register_keras_serializable(package="keras_reformer")
class Recompute(CompositeLayer):
    """A layer whose activations are recomputed in the backward pass.

    Gradient checkpointing: between the passes live the layer's inputs, not
    what it computes inside. It costs one more forward pass of the layer.

    The second forward pass draws the same dropout masks, hash buckets and
    other random numbers as the first, so gradients are those of the layer
    itself. (`keras.RematScope` draws anew.) The layer's state, such as batch
    statistics, is updated once, and losses that it adds count once.
    Second-order gradients raise a `LookupError`.

    For a stack of blocks of equal shape see `ReversibleSequence`, which keeps
    no inputs either.

    Args:
        layer: Keras layer of any kind, built or not.
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name`.

    Call arguments:
        *args: Those of `layer`, tensors or structures of them.
        **kwargs: Those of `layer`, such as masks, and `training`.

    Returns:
        What `layer` returns.

    Raises:
        ValueError: if `layer` is no Keras layer, or was made in a
            `keras.RematScope`.

    Example:

    >>> attention = keras.layers.MultiHeadAttention(2, 16, dropout=0.1)
    >>> layer = keras_reformer.Recompute(attention)
    >>> x = keras.random.normal((1, 100, 32))
    >>> layer(x, x, use_causal_mask=True, training=True).shape
    TensorShape([1, 100, 32])

    Reference: [Chen et al., 2016](https://arxiv.org/abs/1604.06174).
    """

    _layer_arguments = ("layer",)

    def __init__(self, layer, sublayers=None, **kwargs):
        # Keras reads the signature of `call` before the layer can be set.
        self._signature = _signature(checks.layer("layer", layer))
        # The layer casts its inputs itself.
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = layer.dtype_policy
        super().__init__(sublayers=sublayers, autocast=False, **kwargs)
        self.layer = adopt(layer)
        self.supports_masking = layer.supports_masking

    @property
    def call(self):
        """The layer's `call`, of the same signature and with `training`.

        By the signature Keras knows which masks to fill in.
        """

        def call(*args, **kwargs):
            return self._checkpointed(args, kwargs)

        call.__signature__ = self._signature
        return call

    def build(self, input_shape=None):
        """Builds a layer of one input; others are built when first called."""
        if not self.layer.built and _has_one_input(self.layer):
            self.layer(_symbolic_of_shapes(input_shape))

    def _checkpointed(self, args, kwargs):
        layer, structure = self.layer, []
        self._build_layer(args, kwargs)
        check_not_rematerialized(layer, args, kwargs)

        def function(inputs):
            outputs = layer(*inputs[0], **inputs[1])
            # What is no tensor stays; no tensor is kept here.
            structure[:] = [keras.tree.map_structure(_static, outputs)]
            return [x for x in keras.tree.flatten(outputs) if _is_tensor(x)]

        branch = pure_function(layer, function)
        tensors, changes, losses = run_checkpointed(branch, (args, kwargs))
        assign_changes(layer, changes)
        self.add_loss(losses)
        remaining = iter(tensors)
        return keras.tree.map_structure(
            lambda x: next(remaining) if x is _TENSOR else x, structure[0]
        )

    def _build_layer(self, args, kwargs):
        if not self.layer.built:
            args, kwargs = keras.tree.map_structure(_symbolic, (args, kwargs))
            self.layer(*args, **kwargs)

    def prefill(self, inputs, mask, capacity):
        """`call` at inference, and the layer's cache."""
        return decoding.prefill(self.layer, inputs, mask, capacity)

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more position of each row, and the cache."""
        return decoding.decode(self.layer, inputs, cache, positions, constants)

    def decode_constants(self):
        """The layer's tensors that are equal in all steps."""
        return decoding.constants(self.layer)

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        self._build_layer(args, kwargs)
        if "training" not in inspect.signature(self.layer.call).parameters:
            kwargs.pop("training", None)
        return self.layer.compute_output_spec(*args, **kwargs)


def _signature(layer):
    """The signature of a layer's `call`, with `training` in any case."""
    signature = inspect.signature(layer.call)
    if "training" in signature.parameters:
        return signature
    parameters = list(signature.parameters.values())
    kind = inspect.Parameter.KEYWORD_ONLY
    training = inspect.Parameter("training", kind, default=None)
    last = parameters and parameters[-1].kind == inspect.Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - bool(last), training)
    return signature.replace(parameters=parameters)


def _has_one_input(layer):
    required = [
        parameter
        for parameter in inspect.signature(layer.call).parameters.values()
        if parameter.default is parameter.empty
    ]
    return len(required) == len(inspect.signature(layer.build).parameters) == 1


def _symbolic(x):
    return keras.KerasTensor(x.shape, x.dtype) if _is_tensor(x) else x


def _symbolic_of_shapes(shapes):
    return keras.tree.map_shape_structure(keras.KerasTensor, shapes)


def _static(x):
    return _TENSOR if _is_tensor(x) else x


def _is_tensor(x):
    return keras.ops.is_tensor(x) or isinstance(x, keras.KerasTensor)


# Stands for a tensor in a structure of outputs.
_TENSOR = object()
