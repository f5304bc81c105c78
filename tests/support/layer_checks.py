"""`check_layer`: what every public layer must do to be at home in Keras."""

import inspect
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

MIXED_POLICY = "mixed_bfloat16"
# The global policy while MIXED_POLICY is passed to the layer: a sublayer that
# was not given its parent's policy shows it.
OTHER_POLICY = "float64"
# What any layer takes through `**kwargs`.
BASE_ARGUMENTS = set(inspect.signature(keras.layers.Layer.__init__).parameters)
# Configs have these arguments only after a sublayer was changed.
UNCHANGED = {"sublayers"}


def check_layer(
    make_layer,
    input_shape,
    *,
    call_kwargs=None,
    masks=(),
    input_dtype="float32",
    max_id=10,
    mixed_output_dtype="bfloat16",
    dynamic_length=True,
    trains=True,
    ignored_arguments=(),
):
    """Runs every check of this module on fresh layers.

    Args:
        make_layer: Function that makes the layer, takes `dtype=` and hands it
            to whatever it makes; a second call gives an equal layer with
            weights of its own. The classes must be registered.
        input_shape: Shape with the batch, `(batch, length, ...)`, or a tuple
            of such shapes for a layer that is called on a tuple of tensors.
        call_kwargs: Keyword arguments of every call (no tensors).
        masks: Bool arrays `(batch, length)`; the layer is called with each as
            `mask=` too.
        input_dtype: With an integer dtype, inputs are ids below `max_id`.
        mixed_output_dtype: Expected dtype of the outputs under the policy
            "mixed_bfloat16".
        dynamic_length: Whether axis 1 may be unknown.
        trains: Whether a `fit` step must change every trainable variable.
        ignored_arguments: Names of arguments that may miss in the config.
    """
    call_kwargs = call_kwargs or {}
    data = _make_data(input_shape, input_dtype, max_id)
    check_config(make_layer(), ignored_arguments)
    check_shapes(make_layer, data, call_kwargs, dynamic_length)
    check_unknown_shapes(make_layer(), data, call_kwargs, masks, dynamic_length)
    check_saving(make_layer, data, call_kwargs)
    check_mixed_precision(make_layer, data, call_kwargs, mixed_output_dtype)
    if trains:
        check_training(make_layer(), data, call_kwargs)


def check_config(layer, ignored_arguments=()):
    """The signature names what the config has, and it survives JSON.

    `help(layer)` shows the signature, and users write configs by hand: an
    argument that hides in `**kwargs` is in neither. Only those of
    `keras.layers.Layer` itself may.
    """
    config = layer.get_config()
    arguments = {
        name
        for name, parameter in inspect.signature(type(layer)).parameters.items()
        if parameter.kind
        not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    for name in sorted(arguments - UNCHANGED - set(ignored_arguments)):
        assert name in config, f"argument `{name}` is not in `get_config()`"
    for name in sorted(set(config) - arguments - BASE_ARGUMENTS):
        raise AssertionError(
            f"`{name}` is in `get_config()` and not in the signature"
        )
    text = json.dumps(config)
    again = type(layer).from_config(json.loads(text)).get_config()
    assert json.loads(json.dumps(again)) == json.loads(text), "config changed"


def check_shapes(make_layer, data, call_kwargs, dynamic_length=True):
    """Symbolic shapes and dtypes agree with those of an eager call."""
    layer = make_layer()
    outputs = layer(data, **call_kwargs)
    shapes, dtypes = _shapes(outputs), _dtypes(outputs)
    named = layer.compute_output_shape(_map(lambda x: x.shape, data))
    expected = shapes if isinstance(outputs, (list, tuple)) else shapes[0]
    assert _tuples(named) == _tuples(expected), (
        f"compute_output_shape gives {named}, the call shape {expected}"
    )
    for unknown in ((), (0,), _unknown_axes(dynamic_length)):
        symbolic = make_layer()(_symbolic(data, unknown), **call_kwargs)
        assert _dtypes(symbolic) == dtypes
        for found, shape in zip(_shapes(symbolic), shapes, strict=True):
            assert len(found) == len(shape) and all(
                size == known or (unknown and size is None)
                for size, known in zip(found, shape, strict=True)
            ), f"symbolic shape {found}, eager shape {shape}"


def check_unknown_shapes(
    layer, data, call_kwargs, masks=(), dynamic_length=True
):
    """One trace with unknown sizes serves several, and equals eager calls."""
    unknown = _unknown_axes(dynamic_length)
    for mask in (None, *masks):
        arguments = (data,) if mask is None else (data, mask)

        def call(data, mask=None):
            # Keras warns of a `mask` argument that a layer does not take.
            extra = {} if mask is None else {"mask": mask}
            return layer(data, **extra, **call_kwargs)

        call_any_size = tf.function(
            call, input_signature=_map(lambda x: _spec(x, unknown), arguments)
        )
        shorter = _map(lambda x: x[1:], arguments)
        if dynamic_length:
            shorter = _map(lambda x: x[:, :-1] if x.ndim > 1 else x, shorter)
        for sized in (arguments, shorter):
            _assert_close(call_any_size(*sized), call(*sized))


def check_saving(make_layer, data, call_kwargs):
    """`.keras` and `.weights.h5` files give bit-equal predictions."""
    model = _make_model(make_layer(), data, call_kwargs)
    expected = model.predict(data, verbose=0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        loaded.run_eagerly = True
        _assert_equal(loaded.predict(data, verbose=0), expected, ".keras")
        path = Path(directory) / "model.weights.h5"
        model.save_weights(path)
        fresh = _make_model(make_layer(), data, call_kwargs)
        fresh.load_weights(path)
        _assert_equal(fresh.predict(data, verbose=0), expected, ".weights.h5")


def check_mixed_precision(make_layer, data, call_kwargs, output_dtype):
    """Low precision reaches all sublayers and no variable."""
    global_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(OTHER_POLICY)
    try:
        layer = make_layer(dtype=MIXED_POLICY)
        outputs = layer(data, **call_kwargs)
    finally:
        keras.config.set_dtype_policy(global_policy)
    for child in sublayers(layer):
        policy = child.dtype_policy.name
        assert policy in (MIXED_POLICY, "float32"), (
            f"policy of sublayer {child.path} is {policy}"
        )
    for variable in layer.variables:
        if "float" in variable.dtype:
            assert variable.dtype == "float32", variable.path
    for dtype in _dtypes(outputs):
        assert dtype == output_dtype, f"output {dtype} under {MIXED_POLICY}"


def check_training(layer, data, call_kwargs):
    """A `fit` step changes every trainable variable to finite values."""
    model = _make_model(layer, data, call_kwargs)
    if not model.trainable_variables:
        return
    before = [variable.numpy() for variable in model.trainable_variables]
    generator = np.random.default_rng(1)
    targets = _map(
        lambda x: generator.normal(size=x.shape).astype("float32"),
        model.predict(data, verbose=0),
    )
    # Adam's first step does not depend on the size of a gradient.
    model.compile(keras.optimizers.Adam(0.01), loss="mse", run_eagerly=True)
    model.fit(data, targets, batch_size=64, verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        new = variable.numpy()
        assert np.isfinite(new).all(), f"{variable.path} is not finite"
        assert (new != old).any(), (
            f"{variable.path} is not changed by a training step"
        )


def sublayers(layer):
    """All layers inside `layer`, found through its attributes."""
    found, seen = [], {id(layer)}
    queue = list(vars(layer).values())
    while queue:
        item = queue.pop()
        if isinstance(item, dict):
            queue.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            queue.extend(item)
        elif isinstance(item, keras.Layer) and id(item) not in seen:
            seen.add(id(item))
            found.append(item)
            queue.extend(vars(item).values())
    return found


# --- Helpers ---


def _map(function, structure):
    """`function` of every tensor in a tensor or a tuple of tensors."""
    if isinstance(structure, (list, tuple)):
        return tuple(_map(function, item) for item in structure)
    return function(structure)


def _leaves(structure):
    return structure if isinstance(structure, (list, tuple)) else [structure]


def _shapes(tensors):
    return [tuple(tensor.shape) for tensor in _leaves(tensors)]


def _dtypes(tensors):
    return [
        keras.backend.standardize_dtype(tensor.dtype)
        for tensor in _leaves(tensors)
    ]


def _tuples(shapes):
    if isinstance(shapes, (list, tuple)):
        return tuple(_tuples(item) for item in shapes)
    return shapes


def _make_data(shape, dtype, max_id):
    if not isinstance(shape[0], int):
        return tuple(_make_data(item, dtype, max_id) for item in shape)
    generator = np.random.default_rng(0)
    if "int" in dtype:
        return generator.integers(0, max_id, shape).astype(dtype)
    return generator.normal(size=shape).astype(dtype)


def _unknown_axes(dynamic_length):
    return (0, 1) if dynamic_length else (0,)


def _unknown_shape(array, unknown):
    """The shape without the axes `unknown`; the feature axis stays known."""
    is_feature = np.issubdtype(array.dtype, np.floating)
    last = array.ndim - 1 if is_feature else None
    return tuple(
        None if axis in unknown and axis != last else size
        for axis, size in enumerate(array.shape)
    )


def _symbolic(data, unknown):
    def symbolic(array):
        batch, *rest = _unknown_shape(array, unknown)
        return keras.Input(rest, batch_size=batch, dtype=str(array.dtype))

    return _map(symbolic, data)


def _spec(array, unknown):
    return tf.TensorSpec(_unknown_shape(array, unknown), array.dtype)


def _make_model(layer, data, call_kwargs):
    inputs = _symbolic(data, (0,))
    model = keras.Model(inputs, layer(inputs, **call_kwargs))
    # Traces would take longer; `check_unknown_shapes` makes one.
    model.run_eagerly = True
    return model


def _assert_close(found, expected):
    for one, other in zip(_leaves(found), _leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def _assert_equal(found, expected, what):
    for one, other in zip(_leaves(found), _leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other, f"{what} differs")
