import keras

from keras_reformer.layers import checks
from keras_reformer.layers.composite_layer import CompositeLayer
from keras_reformer.layers.tracking import seed_state


class ProjectingLayer(CompositeLayer):
    """Base of the layers made of dense projections.

    Args:
        use_bias: bool. Whether projections have biases.
        kernel_initializer: Initializer of kernels.
        bias_initializer: Initializer of biases.
        kernel_regularizer: Regularizer of kernels.
        bias_regularizer: Regularizer of biases.
        kernel_constraint: Constraint of kernels.
        bias_constraint: Constraint of biases.
        seed: int. Seed of what a call draws.
        **kwargs: Arguments of `CompositeLayer`.
    """

    def __init__(
        self,
        *,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        kernel_constraint,
        bias_constraint,
        seed,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.use_bias = checks.boolean("use_bias", use_bias)
        self.kernel_initializer = checks.initializer(
            "kernel_initializer", kernel_initializer, "glorot_uniform"
        )
        self.bias_initializer = checks.initializer(
            "bias_initializer", bias_initializer, "zeros"
        )
        self.kernel_regularizer = checks.regularizer(
            "kernel_regularizer", kernel_regularizer
        )
        self.bias_regularizer = checks.regularizer(
            "bias_regularizer", bias_regularizer
        )
        self.kernel_constraint = checks.constraint(
            "kernel_constraint", kernel_constraint
        )
        self.bias_constraint = checks.constraint(
            "bias_constraint", bias_constraint
        )
        self.seed = checks.seed("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._seed_state = seed_state(self)

    def _build_dense(self, name, units, input_shape):
        """Makes a dense layer as the attribute `name` and builds it."""
        dense = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=checks.fresh(self.kernel_initializer),
            bias_initializer=checks.fresh(self.bias_initializer),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )
        self._make_sublayer(name, dense).build(input_shape)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        config = {**super().get_config(), "use_bias": self.use_bias}
        for kind in ("initializer", "regularizer", "constraint"):
            serialize = getattr(keras, f"{kind}s").serialize
            for name in (f"kernel_{kind}", f"bias_{kind}"):
                config[name] = serialize(getattr(self, name))
        return {**config, "seed": self.seed}
