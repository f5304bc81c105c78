import math

import keras

from keras_reformer.layers import checks, decoding
from keras_reformer.layers.composite_layer import CompositeLayer
from keras_reformer.layers.dropout import Dropout
from keras_reformer.layers.masks import given_mask
from keras_reformer.layers.stateless import (
    build_branch,
    call_branch,
    pure_outputs,
)
from keras_reformer.layers.sublayers import adopt
from keras_reformer.ops.chunking import chunk_length_for, map_positions
from keras_reformer.ops.loops.scan import ArraySpec

# Longer sequences (32 MiB of float32) are normalized in chunks, recomputed in
# the backward pass, so that no intermediate is as long as the sequence.
_ELEMENTS_AT_ONCE = 2**23


@keras.saving.register_keras_serializable(package="keras_reformer")
class PreNormalization(CompositeLayer):
    """A residual branch: normalization, a layer, dropout.

    `dropout(layer(normalization(x)))`, without the residual connection,
    which `ReversibleBlock` adds. The normalization is computed in float32 at
    least.

    Args:
        layer: Keras layer of equal input and output shape.
        epsilon: float. Added to the variance. Defaults to `1e-6`.
        dropout: float in `[0, 1)`. Dropout of the output. Defaults to `0.0`.
        seed: int. Seed of dropout.
        normalization: `"layer_norm"` or `"rms_norm"`. Defaults to
            `"layer_norm"`.
        shared_dropout: bool. Whether all positions share one dropout mask.
            Defaults to `False`.
        stochastic_depth: float in `[0, 1)`. Probability of dropping the
            branch for an example in training; the others' outputs are scaled
            by `1 / (1 - stochastic_depth)`. Defaults to `0.0`.
        stochastic_depth_seed: int. Branches with equal rate and seed that
            are called once a step drop the same examples.
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, hidden_dim)`.
        mask: Boolean tensor of shape `(batch, length)`, passed to `layer` if
            its `call` takes one.
        context: Float tensor of shape `(batch, keys, dim)`, for a layer that
            attends to one, such as `CrossAttention`.
        context_mask: Boolean tensor of shape `(batch, keys)`.
        training: bool. Whether to apply dropout.
        segment_ids: Integer tensor of shape `(batch, length)`, passed to
            `layer` if its `call` takes them.
        inputs_mask: the mask attached to the inputs, which Keras fills in.
            `mask` wins.

    Returns:
        Float tensor of the inputs' shape.

    Example:

    >>> branch = keras_reformer.PreNormalization(keras_reformer.FeedForward(8))
    >>> branch(keras.random.normal((1, 10, 4))).shape
    TensorShape([1, 10, 4])

    Reference: [Xiong et al., 2020](https://arxiv.org/abs/2002.04745);
    stochastic depth: [Huang et al., 2016](https://arxiv.org/abs/1603.09382);
    RMS: [Zhang and Sennrich, 2019](https://arxiv.org/abs/1910.07467).
    """

    _layer_arguments = ("layer",)

    def __init__(
        self,
        layer,
        epsilon=1e-6,
        dropout=0.0,
        seed=None,
        normalization="layer_norm",
        shared_dropout=False,
        stochastic_depth=0.0,
        stochastic_depth_seed=None,
        sublayers=None,
        **kwargs,
    ):
        super().__init__(sublayers=sublayers, autocast=False, **kwargs)
        self.supports_masking = True
        self.layer = adopt(checks.layer("layer", layer))
        self.epsilon = checks.positive("epsilon", epsilon)
        self.dropout = checks.rate("dropout", dropout)
        self.seed = checks.seed("seed", seed)
        self.normalization_type = normalization
        self.shared_dropout = checks.boolean("shared_dropout", shared_dropout)
        self.stochastic_depth = checks.rate(
            "stochastic_depth", stochastic_depth
        )
        self.stochastic_depth_seed = checks.seed(
            "stochastic_depth_seed", stochastic_depth_seed
        )
        self._make_sublayer(
            "normalization",
            make_normalization(
                normalization,
                epsilon=self.epsilon,
                dtype="float64" if self.dtype == "float64" else "float32",
            ),
        )
        self._make_dropouts()

    def _make_dropouts(self):
        self._make_sublayer(
            "dropout_layer",
            Dropout(
                self.dropout,
                shared_axes=1 if self.shared_dropout else None,
                seed=self.seed,
                dtype=self.dtype_policy,
                name="dropout",
            ),
        )
        self._make_sublayer(
            "drop_branch",
            Dropout(
                self.stochastic_depth,
                shared_axes=(1, 2),
                seed=self.stochastic_depth_seed,
                dtype=self.dtype_policy,
                name="stochastic_depth",
            ),
        )

    def build(self, inputs_shape=None, context_shape=None):
        checks.sequence_shape(self.name, inputs_shape)
        self.normalization.build(inputs_shape)
        dtype = self.normalization.dtype
        build_branch(self.layer, inputs_shape, dtype, context_shape)
        self.dropout_layer.build(inputs_shape)
        self.drop_branch.build(inputs_shape)

    def call(
        self,
        inputs,
        mask=None,
        training=None,
        context=None,
        context_mask=None,
        segment_ids=None,
        inputs_mask=None,
    ):
        outputs = call_branch(
            self.layer,
            self._normalized(inputs),
            given_mask(mask, inputs_mask),
            training,
            context=context,
            context_mask=context_mask,
            segment_ids=segment_ids,
        )
        outputs = self.dropout_layer(outputs, training=training)
        return self.drop_branch(outputs, training=training)

    def prefill(self, inputs, mask, capacity, context=None, context_mask=None):
        """`call` at inference, and the layer's cache."""
        return decoding.prefill(
            self.layer,
            self._normalized(inputs),
            mask,
            capacity,
            context=context,
            context_mask=context_mask,
        )

    def decode(self, inputs, cache, positions, constants=None):
        """Outputs for one more position of each row, and the cache."""
        return decoding.decode(
            self.layer, self._normalized(inputs), cache, positions, constants
        )

    def decode_constants(self):
        """The layer's tensors that are equal in all steps."""
        return decoding.constants(self.layer)

    def _normalized(self, inputs):
        shape = inputs.shape
        known = math.prod(size or 1 for size in shape)
        if len(shape) != 3 or shape[1] is None or known <= _ELEMENTS_AT_ONCE:
            return self.normalization(inputs)
        function, weights = pure_outputs(self.normalization, self.normalization)
        return map_positions(
            lambda chunk, first, values: function(values, chunk),
            inputs,
            weights,
            chunk_length_for(inputs, shape[2], _ELEMENTS_AT_ONCE // 4),
            ArraySpec(shape[2:], self.normalization.compute_dtype),
        )

    def compute_output_shape(self, inputs_shape, context_shape=None):
        return tuple(inputs_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "seed": self.seed,
            "normalization": self.normalization_type,
            "shared_dropout": self.shared_dropout,
            "stochastic_depth": self.stochastic_depth,
            "stochastic_depth_seed": self.stochastic_depth_seed,
        }


def make_normalization(kind, epsilon, dtype):
    """A normalization layer by name.

    Args:
        kind: `"layer_norm"` or `"rms_norm"`.
        epsilon: float. Added to the variance, or to the mean square.
        dtype: dtype to compute in.
    """
    checks.choice("normalization", kind, ("layer_norm", "rms_norm"))
    make = {
        "layer_norm": keras.layers.LayerNormalization,
        "rms_norm": keras.layers.RMSNormalization,
    }[kind]
    # Building makes a list of the axis, which is no change of a setting.
    layer = make([-1], epsilon=epsilon, dtype=dtype, name="normalization")
    # Keras's RMS norm would drop masks, with a warning.
    layer.supports_masking = True
    return layer
