"""`check_layer` accepts good layers and refuses broken ones."""

import functools

import keras
import numpy as np
import pytest

from tests.support.layer_checks import check_layer


@keras.saving.register_keras_serializable(package="test_reference")
class Scale(keras.layers.Layer):
    """A good small layer with a child; subclasses break one rule each."""

    def __init__(self, units, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.factor = factor
        self.supports_masking = True
        self.children = [self.make_child()]

    def make_child(self):
        return keras.layers.Dense(self.units, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.children[0].build(input_shape)

    def call(self, inputs, mask=None):
        outputs = self.children[0](inputs) * self.factor
        if mask is None:
            return outputs
        return keras.ops.where(mask[..., None], outputs, 0)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        config = {"units": self.units, "factor": self.factor}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="test_reference")
class ForgetsAnArgument(Scale):
    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config


@keras.saving.register_keras_serializable(package="test_reference")
class HidesAnArgument(Scale):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)


@keras.saving.register_keras_serializable(package="test_reference")
class ChangesAnArgument(Scale):
    def get_config(self):
        return {**super().get_config(), "factor": self.factor + 1}


@keras.saving.register_keras_serializable(package="test_reference")
class ForgetsThePolicy(Scale):
    def make_child(self):
        return keras.layers.Dense(self.units)


@keras.saving.register_keras_serializable(package="test_reference")
class FixesTheLength(Scale):
    def call(self, inputs, mask=None):
        outputs = super().call(inputs)
        return keras.ops.reshape(outputs, (-1, 5, self.units))


@keras.saving.register_keras_serializable(package="test_reference")
class NamesAnotherShape(Scale):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units + 1)


@keras.saving.register_keras_serializable(package="test_reference")
class LosesAGradient(Scale):
    def call(self, inputs, mask=None):
        kernel = keras.ops.stop_gradient(self.children[0].kernel)
        return keras.ops.matmul(inputs, kernel) + self.children[0].bias


@keras.saving.register_keras_serializable(package="test_reference")
class ComputesInFloat32(Scale):
    def call(self, inputs, mask=None):
        return keras.ops.cast(super().call(inputs), "float32")


@keras.saving.register_keras_serializable(package="test_reference")
class HidesAWeight(Scale):
    def build(self, input_shape):
        super().build(input_shape)
        self.hidden = np.random.default_rng().normal(size=self.units)

    def call(self, inputs, mask=None):
        outputs = super().call(inputs)
        return outputs + keras.ops.cast(self.hidden, outputs.dtype)


@keras.saving.register_keras_serializable(package="test_reference")
class Swap(keras.layers.Layer):
    """A pair in, a pair out."""

    def call(self, inputs):
        first, second = inputs
        return second, first + second

    def compute_output_shape(self, input_shape):
        return input_shape[1], input_shape[0]


def test_check_layer_accepts_good_layers():
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    check_layer(functools.partial(Scale, 3), (2, 5, 7), masks=(mask,))
    check_layer(Swap, ((2, 5, 3), (2, 5, 3)))
    # Arguments that Keras writes only when they are set, or never.
    unwritten = ("activity_regularizer", "weights", "lora_rank", "lora_alpha")
    check_layer(
        functools.partial(keras.layers.Dense, 3),
        (2, 5, 7),
        ignored_arguments=unwritten,
    )
    check_layer(
        functools.partial(keras.layers.Embedding, 11, 3),
        (2, 5),
        input_dtype="int32",
        ignored_arguments=unwritten,
    )


@pytest.mark.parametrize(
    "broken, message",
    [
        (ForgetsAnArgument, "`factor` is not in `get_config"),
        (HidesAnArgument, "`factor` is in `get_config.*not in the signature"),
        (ChangesAnArgument, "config changed"),
        (ForgetsThePolicy, "policy of sublayer"),
        (FixesTheLength, "reshape"),
        (NamesAnotherShape, "compute_output_shape gives"),
        (LosesAGradient, "not changed by a training step"),
        (ComputesInFloat32, "output float32 under mixed_bfloat16"),
        (HidesAWeight, r"\.keras differs"),
    ],
)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_check_layer_refuses_a_broken_layer(broken, message):
    with pytest.raises(Exception, match=message):
        check_layer(functools.partial(broken, 3), (2, 5, 3))
