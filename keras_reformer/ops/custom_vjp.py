"""Hand-written gradients: a forward and a backward pass, residuals between.

As `jax.custom_vjp`. What lives between the two passes is what `forward`
returns as residuals, so that it can be read in one place.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# The collection of a graph that owns the gradients of its operations.
_GRADIENTS = "keras_reformer_gradients"


def custom_vjp(
    forward: Callable[..., tuple],
    backward: Callable[..., Any],
    *,
    first_order: bool = True,
) -> Callable:
    """A function with a gradient of its own (vector-Jacobian product).

    Arguments, outputs and residuals are structures of tensors, None and
    static values. All tensors come in as arguments, those without a gradient
    too: `forward` and `backward` close over static values alone, and must not
    read variables.

    The graph being traced owns the residuals, and they are freed with it.
    (TensorFlow's registry of gradients is never emptied, and would keep them,
    their graph and the variables that the graph reads.) Eagerly no tape
    records what happens inside of `forward`.

    Args:
        forward: `(*args) -> (outputs, residuals)`.
        backward: `(residuals, *d_outputs) -> d_args`: gradients with respect
            to the outputs, then a tuple of those with respect to each
            argument: of the argument's structure, or None. They are cast to
            the dtypes of the arguments.
        first_order: bool. A hand-written gradient is exact, but the gradient
            of its own code would run through loops that keep every step
            alive, or take residuals for constants. Asking for it raises a
            `LookupError` instead of returning a wrong number. False for a
            `backward` that is linear in `d_outputs` and reads no residual
            that depends on the arguments, which TensorFlow can
            differentiate; eagerly a tape then records `forward` too.

    Returns:
        Function of the same arguments that returns the outputs.

    Example:

    >>> def forward(x):
    ...     return x**3, x
    >>> def backward(x, d_y):
    ...     return (3 * x**2 * d_y,)
    >>> cube = custom_vjp(forward, backward)
    >>> x = tf.constant(2.0)
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(x)
    ...     y = cube(x)
    >>> float(tape.gradient(y, x))
    12.0
    """

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(forward)
    def function(*args):
        arguments = _Arguments(args)
        structure = None

        def on_tensors(*tensors):
            nonlocal structure
            outputs, residuals = forward(*arguments.pack(tensors))
            structure = tf.nest.map_structure(lambda _: None, outputs)

            def gradient(*d_outputs):
                d_outputs = tf.nest.pack_sequence_as(structure, d_outputs)
                if not isinstance(structure, tuple | list):
                    d_outputs = (d_outputs,)
                d_args = backward(residuals, *d_outputs)
                return arguments.flatten_gradients(d_args)

            return tf.nest.flatten(outputs), gradient

        if first_order:
            on_tensors = _forbid_second_order(on_tensors)
        outputs = _custom_gradient(on_tensors)(*_tensors_in(args))
        return tf.nest.pack_sequence_as(structure, outputs)

    return function


class _Arguments:
    """The structure of arguments, without their tensors."""

    def __init__(self, args: tuple):
        leaves = [tf.nest.flatten(arg) for arg in args]
        # A tensor's dtype, and at other leaves None.
        self.dtypes = [
            [x.dtype if tf.is_tensor(x) else None for x in part]
            for part in leaves
        ]
        self.template = tf.nest.map_structure(
            lambda x: None if tf.is_tensor(x) else x, args
        )

    def pack(self, tensors: Sequence[tf.Tensor]) -> tuple:
        """The arguments with these tensors."""
        remaining = iter(tensors)
        leaves = [
            static if dtype is None else next(remaining)
            for static, dtype in zip(
                tf.nest.flatten(self.template),
                (dtype for part in self.dtypes for dtype in part),
                strict=True,
            )
        ]
        return tf.nest.pack_sequence_as(self.template, leaves)

    def flatten_gradients(self, d_args: Sequence) -> list[tf.Tensor | None]:
        """The gradient with respect to each tensor, in its dtype."""
        flat: list[tf.Tensor | None] = []
        for d_arg, dtypes in zip(d_args, self.dtypes, strict=True):
            nothing = [None] * len(dtypes)
            parts = nothing if d_arg is None else tf.nest.flatten(d_arg)
            flat += [
                part if part is None else tf.cast(part, dtype)
                for part, dtype in zip(parts, dtypes, strict=True)
                if dtype is not None
            ]
        return flat


def _tensors_in(structure: Any) -> list[tf.Tensor]:
    return [x for x in tf.nest.flatten(structure) if tf.is_tensor(x)]


def _custom_gradient(function: Callable) -> Callable:
    """`tf.custom_gradient` of flat tensors that keeps no graph alive.

    The graph owns the gradient, and TensorFlow's registry refers to it
    weakly.
    """

    def wrapped(*inputs):
        if tf.executing_eagerly():
            return tf.custom_gradient(function)(*inputs)
        registered: list[Any] = []

        def weak(*inputs):
            outputs, gradient = function(*inputs)
            registered.extend(outputs)
            return registered, _owned_by_graph(gradient)

        outputs = tf.custom_gradient(weak)(*inputs)
        # The registry holds this list too, but asks for its length alone.
        registered[:] = [None] * len(registered)
        return outputs

    return wrapped


def _owned_by_graph(gradient: Callable) -> Callable:
    """The same function, which lives as long as the graph being built."""
    # A caller's tf.function may convert what its tape calls.
    gradient = tf.autograph.experimental.do_not_convert(gradient)
    graph = tf.compat.v1.get_default_graph()
    graph.add_to_collection(_GRADIENTS, gradient)
    reference = weakref.ref(gradient)
    return lambda *d_outputs: reference()(*d_outputs)


def _forbid_second_order(function: Callable) -> Callable:
    """The same function, whose gradients refuse to be differentiated."""

    def wrapped(*inputs):
        if not tf.executing_eagerly():
            outputs, gradient = function(*inputs)
            return outputs, lambda *d_outputs: _guard(gradient(*d_outputs))
        # A tape around would record, and keep, all that happens inside.
        outputs, gradient = function(*map(tf.stop_gradient, inputs))
        differentiable = [x for x in inputs if tf.as_dtype(x.dtype).is_floating]
        return outputs, lambda *d_outputs: _guard(
            gradient(*d_outputs), differentiable
        )

    return wrapped


def _guard(gradients: list, inputs: Sequence[tf.Tensor] = ()) -> list:
    """The gradients, which refuse to be differentiated.

    Args:
        gradients: tensors and None.
        inputs: tensors with respect to which a gradient is refused too,
            where nothing recorded that the gradients depend on them.
    """
    tensors = [x for x in gradients if x is not None]

    @_custom_gradient
    def refuse(*tensors_and_inputs):
        def raise_error(*_):
            raise LookupError(_MESSAGE)

        return list(tensors_and_inputs[: len(tensors)]), raise_error

    if inputs:
        tensors = refuse(*tensors, *inputs)
    else:
        tensors = [
            tf.raw_ops.PreventGradient(input=tensor, message=_MESSAGE)
            for tensor in tensors
        ]
    guarded = iter(tensors)
    return [None if x is None else next(guarded) for x in gradients]


_MESSAGE = (
    "Second-order gradients through keras_reformer's attention, reversible "
    "and chunked layers are not supported. Expected one differentiation only. "
    "Where you need two, use `recompute=False`, "
    "`keras.layers.MultiHeadAttention` and `keras.layers.Dense`."
)
