import keras

from keras_reformer.layers import checks
from keras_reformer.layers.stateless import pure_function
from keras_reformer.ops.chunking import map_positions
from keras_reformer.ops.dropout import dropout


@keras.saving.register_keras_serializable(package="keras_reformer")
class FeedForward(keras.layers.Layer):
    """Two dense layers with an activation between, at each position alone.

    Args:
        intermediate_dim: int. Width between the two layers.
        activation: Activation function. Defaults to `"gelu"`.
        dropout: float in `[0, 1)`. Dropout after the activation. Defaults to
            `0.0`.
        gated: bool. A third dense layer multiplies the activation, as in
            gated linear units. Defaults to `False`.
        chunk_length: int. Positions computed at a time, so that memory does
            not grow with `length * intermediate_dim`. `None` computes all at
            once. Defaults to `None`.
        kernel_initializer: Initializer of kernels. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of biases. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of kernels.
        bias_regularizer: Regularizer of biases.
        seed: int. Seed of dropout.
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
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.intermediate_dim = checks.positive_int(
            "intermediate_dim", intermediate_dim
        )
        self.activation = keras.activations.get(activation)
        self.dropout = checks.rate("dropout", dropout)
        self.gated = bool(gated)
        if chunk_length is not None:
            checks.positive_int("chunk_length", chunk_length)
        self.chunk_length = chunk_length
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        inner_shape = (*input_shape[:-1], self.intermediate_dim)
        self.intermediate = self._dense(self.intermediate_dim, "intermediate")
        self.intermediate.build(input_shape)
        if self.gated:
            self.gate = self._dense(self.intermediate_dim, "gate")
            self.gate.build(input_shape)
        self.output_dense = self._dense(input_shape[-1], "output")
        self.output_dense.build(inner_shape)

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs, training=None):
        seed = None
        if training and self.dropout:
            seed = self.seed_generator.next()
        if self.chunk_length is None:
            return self._positions(inputs, seed)
        function = pure_function(self, self._positions)
        return map_positions(
            lambda chunk, first, weights: function.run(
                weights, function.state, chunk, seed, first
            )[0],
            inputs,
            function.trainable,
            self.chunk_length,
        )

    def _positions(self, inputs, seed, first_position=0):
        hidden = self.activation(self.intermediate(inputs))
        if self.gated:
            hidden = hidden * self.gate(inputs)
        if seed is not None:
            hidden = dropout(
                hidden,
                self.dropout,
                seed,
                first_position=first_position,
            )
        return self.output_dense(hidden)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "gated": self.gated,
            "chunk_length": self.chunk_length,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "bias_regularizer": keras.regularizers.serialize(
                self.bias_regularizer
            ),
            "seed": self.seed,
        }
