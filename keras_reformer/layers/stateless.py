import inspect
import warnings
import weakref

import keras

from keras_reformer.layers.moving_means import assign_mean, collecting_weights
from keras_reformer.layers.static_state import sublayers_of
from keras_reformer.ops.reversible.coupling import Change, PureFunction

# Branches without `segment_ids` whose layers inside have been looked at.
_checked_for_segments: weakref.WeakSet = weakref.WeakSet()


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
        outputs, changes of `state` by index, and a list of losses.
    """
    layers = layers if isinstance(layers, list) else [layers]
    trainable, others = split_variables(layers)

    def run(trainable_values, state_values, *inputs):
        mapping = [
            *zip(trainable, trainable_values, strict=True),
            *zip(others, state_values, strict=True),
        ]
        stateless = keras.StatelessScope(mapping, collect_losses=True)
        with collecting_weights() as weights, stateless as scope:
            before = [scope.get_current_value(v) for v in others]
            outputs = function(*inputs)
            after = [scope.get_current_value(v) for v in others]
        changes = {
            index: Change(new, [weights[id(v)]] if id(v) in weights else [])
            for index, (v, old, new) in enumerate(
                zip(others, before, after, strict=True)
            )
            if new is not old
        }
        return outputs, changes, list(scope.losses)

    # The layers keep the variables alive, so ids are unique.
    keys = [id(v) for v in others]
    return PureFunction(
        run, _values(trainable), _values(others), keys, signature
    )


def split_variables(layers):
    """Variables that gradients may be asked for, and all others.

    Each variable's own flag counts, as in the lists of a whole model: a layer
    may train inside of one that does not.

    Args:
        layers: list of built Keras layers.
    """
    variables = [v for layer in layers for v in layer.variables]
    trainable = [v for v in variables if v.trainable]
    return trainable, [v for v in variables if not v.trainable]


def assign_changes(layer, changes):
    """Assigns what a `pure_function` of a layer changed: seeds, statistics.

    Args:
        layer: the layer.
        changes: dict of a `Change` by the index of the variable.
    """
    _, variables = split_variables([layer])
    for index, (value, weight) in changes.items():
        if weight:
            assign_mean(variables[index], value, *weight)
        else:
            variables[index].assign(value)


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


def build_branch(layer, shape, dtype, context_shape=None):
    """Builds a layer, with or without a `build` method, by a symbolic call.

    Args:
        layer: a Keras layer, built or not.
        shape: shape of its inputs.
        dtype: dtype of its inputs.
        context_shape: shape of its `context`, if there is one.

    Returns:
        The shape of its outputs.
    """
    context = {}
    if context_shape is not None:
        context["context"] = keras.KerasTensor(context_shape, dtype=dtype)
    inputs = keras.KerasTensor(shape, dtype=dtype)
    return tuple(layer(inputs, **accepted_by(layer.call, context)).shape)


def call_branch(layer, inputs, mask, training, **others):
    """Calls a layer with `training`, and with a `mask` if `call` takes one.

    Both are explicit, because the backward pass of a custom gradient runs
    outside of Keras's call context, which would fill them in. So are the
    `others`, of `given`. A layer whose `call` takes no `training` hands it to
    the layers inside.
    """
    options = {"mask": mask, **given(**others)}
    accepted = accepted_by(layer.call, options)
    if "segment_ids" in options and "segment_ids" not in accepted:
        _warn_of_mixed_documents(layer)
    return layer(inputs, training=training, **accepted)


def _warn_of_mixed_documents(layer):
    """Warns once of a layer that keeps `segment_ids` from one inside of it."""
    if layer in _checked_for_segments:
        return
    _checked_for_segments.add(layer)
    for inside in sublayers_of(layer):
        if accepted_by(inside.call, {"segment_ids": None}):
            warnings.warn(
                f"The `call` of branch `{layer.name}` takes no `segment_ids`, "
                f"so layer `{inside.name}` inside of it mixes the documents "
                "of a row. Use a branch that hands them on, such as "
                "`PreNormalization`, or a layer of your own whose `call` "
                "takes `segment_ids` and passes them to "
                f"`{inside.name}`.",
                stacklevel=2,
            )
            return


def given(context=None, context_mask=None, segment_ids=None):
    """A context and packed documents by name, without those that are None."""
    options = {}
    if context is not None:
        options.update(context=context, context_mask=context_mask)
    if segment_ids is not None:
        options["segment_ids"] = segment_ids
    return options


def accepted_by(function, options):
    """Those of some arguments, by name, that a function takes."""
    accepted = inspect.signature(function).parameters
    return {name: x for name, x in options.items() if name in accepted}
