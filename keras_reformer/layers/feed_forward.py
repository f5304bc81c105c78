import keras

from keras_reformer.layers import checks
from keras_reformer.layers.projecting_layer import ProjectingLayer
from keras_reformer.layers.stateless import pure_outputs
from keras_reformer.ops.chunking import chunk_length_for, map_positions
from keras_reformer.ops.dropout import dropout

# Hidden units of a chunk, over the batch: 8 MiB of float32, of which the
# backward pass holds about five. Half as many took a CPU a few per cent
# longer, more no less.
UNITS_IN_STEP = 2**21


@keras.saving.register_keras_serializable(package="keras_reformer")
class FeedForward(ProjectingLayer):
    """Position-wise feed-forward network: dense, activation, dense.

    Args:
        intermediate_dim: int. Units of the first dense layer.
        activation: Activation function. Defaults to `"gelu"`.
        dropout: float in `[0, 1)`. Dropout after the activation. Defaults to
            `0.0`.
        gated: bool. Whether a third dense layer is multiplied with the
            activations, as in gated linear units. Defaults to `False`.
        chunk_length: int. Positions computed at a time, so that memory does
            not grow with `length * intermediate_dim`. The backward pass
            recomputes each chunk; second-order gradients raise. Defaults to
            `None`: chunks of two million hidden units for inputs of rank 3
            (32 million on a GPU), no chunks for others.
        use_bias: bool. Whether the dense layers have biases. Defaults to
            `True`.
        shared_dropout: bool. Whether all positions share one dropout mask.
            Defaults to `False`.
        kernel_initializer: Initializer of kernels. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of kernels.
        bias_regularizer: Regularizer of biases.
        kernel_constraint: Constraint of kernels.
        bias_constraint: Constraint of biases.
        seed: int. Seed of dropout.
        sublayers: dict. Settings of sublayers that were changed after they
            were made, by path, as `get_config` returns them.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(..., hidden_dim)`.
        training: bool. Whether to apply dropout.

    Returns:
        Float tensor of the inputs' shape.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> layer = keras_reformer.FeedForward(intermediate_dim=64)
    >>> layer(keras.random.normal((1, 1000, 32))).shape
    TensorShape([1, 1000, 32])

    Reference: [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762),
    section 3.3; gating: [Shazeer, 2020](https://arxiv.org/abs/2002.05202).
    """

    def __init__(
        self,
        intermediate_dim,
        activation="gelu",
        dropout=0.0,
        gated=False,
        chunk_length=None,
        use_bias=True,
        shared_dropout=False,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        seed=None,
        sublayers=None,
        **kwargs,
    ):
        super().__init__(
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
            sublayers=sublayers,
            **kwargs,
        )
        self.intermediate_dim = checks.positive_int(
            "intermediate_dim", intermediate_dim
        )
        self.activation = checks.activation("activation", activation)
        self.dropout = checks.rate("dropout", dropout)
        self.gated = checks.boolean("gated", gated)
        self.shared_dropout = checks.boolean("shared_dropout", shared_dropout)
        if chunk_length is not None:
            checks.positive_int("chunk_length", chunk_length)
        self.chunk_length = chunk_length

    def build(self, input_shape):
        if self.chunk_length is not None:
            checks.sequence_shape(self.name, input_shape)
        checks.vectors_shape(self.name, input_shape)
        inner_shape = (*input_shape[:-1], self.intermediate_dim)
        self._build_dense("intermediate", self.intermediate_dim, input_shape)
        if self.gated:
            self._build_dense("gate", self.intermediate_dim, input_shape)
        self._build_dense("output_dense", input_shape[-1], inner_shape)

    def call(self, inputs, training=None):
        checks.numeric("inputs", inputs)
        seed = None
        if training and self.dropout:
            seed = self.seed_generator.next()
        chunk_length = self.chunk_length
        if chunk_length is None:
            if inputs.shape.rank != 3:
                return self._positions(inputs, seed)
            chunk_length = chunk_length_for(
                inputs, self.intermediate_dim, UNITS_IN_STEP
            )
        function, weights = pure_outputs(self, self._positions)
        return map_positions(
            lambda chunk, first, values: function(values, chunk, seed, first),
            inputs,
            weights,
            chunk_length,
        )

    def _positions(self, inputs, seed, first_position=0):
        hidden = self.activation(self.intermediate(inputs))
        if self.gated:
            hidden = hidden * self.gate(inputs)
        if seed is not None:
            hidden = self._drop(hidden, seed, first_position)
        return self.output_dense(hidden)

    def _drop(self, hidden, seed, first_position):
        shared = ()
        if self.shared_dropout:
            shared = tuple(range(1, hidden.shape.rank - 1))
        return dropout(
            hidden,
            self.dropout,
            seed,
            shared_axes=shared,
            first_position=first_position,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "gated": self.gated,
            "chunk_length": self.chunk_length,
            "shared_dropout": self.shared_dropout,
        }
