import inspect

import keras

from keras_reformer.ops.reversible.coupling import PureFunction


def pure_function(layers, function, signature=None):
    """A pure function of layers' weights and states, and of inputs.

    Variables get their values from a `keras.StatelessScope`. Unlike
    `layer.stateless_call` this runs `__call__` (with casts and activity
    regularizers), and its losses do not include those of weight
    regularizers, which do not depend on the call.

    Args:
        layers: a built Keras layer or a list of them.
        function: reads variables of these and of their sublayers only.
        signature: the `PureFunction`'s.

    Returns:
        A `PureFunction` whose `run(trainable, state, *inputs)` returns
        outputs, the updated values of `state` by index, and a list of losses.
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

    # The layers keep the variables alive, so ids are unique.
    keys = [id(v) for v in others]
    return PureFunction(
        run, _values(trainable), _values(others), keys, signature
    )


def pure_outputs(layers, function):
    """A `pure_function` that returns outputs alone.

    For calls on chunks of a sequence, whose state updates and losses would
    not be those of one call on the whole sequence.

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
    """Values in the variables' own dtypes, also within an autocast scope."""
    return [
        keras.ops.cast(keras.ops.convert_to_tensor(v), v.dtype)
        for v in variables
    ]


def build_branch(layer, shape, dtype):
    """Builds a layer, with or without a `build` method, by a symbolic call.

    Args:
        layer: a Keras layer, built or not.
        shape: shape of its inputs.
        dtype: dtype of its inputs.

    Returns:
        The shape of its outputs.
    """
    return tuple(layer(keras.KerasTensor(shape, dtype=dtype)).shape)


def call_branch(layer, inputs, mask, training, segment_ids=None):
    """Calls a layer with what its `call` takes of the other arguments.

    They are explicit, because the backward pass of a custom gradient runs
    outside of Keras's call context, which would fill in masks and `training`.
    """
    options = {"mask": mask, "training": training}
    if segment_ids is not None:
        options["segment_ids"] = segment_ids
    accepted = inspect.signature(layer.call).parameters
    return layer(inputs, **{k: v for k, v in options.items() if k in accepted})
