import inspect

import keras

from keras_reformer.ops.reversible.coupling import PureFunction


def pure_function(layers, function, signature=None):
    """A function of layers with all it reads as explicit arguments.

    Keras's public `StatelessScope` stands in for the variables. Unlike
    `layer.stateless_call` this goes through `__call__` (casting, activity
    regularizers), and weight regularizers, which belong to the weights and
    not to a call, stay out of the losses.

    Args:
        layers: a built Keras layer or a list of them.
        function: reads variables of these and of their sublayers only.
        signature: of the `PureFunction`.

    Returns:
        A `PureFunction` whose `run(trainable, state, *inputs)` returns outputs,
        what changed in `state` by index, and the losses that the call added.
    """
    layers = layers if isinstance(layers, list) else [layers]
    trainable = [v for layer in layers for v in layer.trainable_variables]
    others = [v for layer in layers for v in layer.non_trainable_variables]

    def run(trainable_values, state_values, *inputs):
        mapping = [
            *zip(trainable, trainable_values, strict=True),
            *zip(others, state_values, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            before = [scope.get_current_value(v) for v in others]
            outputs = function(*inputs)
            after = [scope.get_current_value(v) for v in others]
        changes = {
            index: new
            for index, (old, new) in enumerate(zip(before, after, strict=True))
            if new is not old
        }
        return outputs, changes, list(scope.losses)

    # The variables outlive the branch, so no other one takes their ids.
    keys = [id(v) for v in others]
    return PureFunction(
        run, _values(trainable), _values(others), keys, signature
    )


def pure_outputs(layers, function):
    """A `pure_function` of which only the outputs matter.

    For calls on parts of a sequence: what such calls change or add to the
    losses is dropped, since it would not be that of one call on the whole.

    Args:
        layers: a built Keras layer or a list of them.
        function: reads variables of these and of their sublayers only.

    Returns:
        A function `(trainable, *inputs) -> outputs`, and the values of
        `trainable`.
    """
    branch = pure_function(layers, function)

    def run(trainable, *inputs):
        outputs, *_ = branch.run(trainable, branch.state, *inputs)
        return outputs

    return run, branch.trainable


def _values(variables):
    """Values in the variables' own dtype, whatever autocasting is on."""
    return [
        keras.ops.cast(keras.ops.convert_to_tensor(v), v.dtype)
        for v in variables
    ]


def build_branch(layer, shape, dtype):
    """Builds a layer by a symbolic call, also one without its own `build`.

    Args:
        layer: a Keras layer, built or not.
        shape: shape of its inputs.
        dtype: dtype of its inputs.

    Returns:
        The shape of its outputs.
    """
    return tuple(layer(keras.KerasTensor(shape, dtype=dtype)).shape)


def call_branch(layer, inputs, mask, training):
    """Calls a layer with those of `mask` and `training` that it takes.

    Both are handed over explicitly: in the backward pass of a custom gradient
    Keras's call context, which would fill them in, is gone.
    """
    options = {"mask": mask, "training": training}
    accepted = inspect.signature(layer.call).parameters
    return layer(inputs, **{k: v for k, v in options.items() if k in accepted})
