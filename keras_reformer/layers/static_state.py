"""Comparison of what a trace of layers takes for constant."""

import functools
import types

import keras

from keras_reformer.ops.tracing import is_symbolic


class StaticState:
    """All that a trace of layers takes for constant.

    A trace reads variables each time it runs. Everything else is baked in:
    settings, sublayers and the set of variables, so a layer needs another
    trace when a setting changes, LoRA is enabled or it is quantized. Two
    states are equal as long as a trace made at one is valid at the other.

    The state consists of the attributes of layers, and of elements of lists,
    tuples and dicts. Numbers and strings are compared by value, other objects
    by identity; the state holds references to them, so no later object can
    have the same address. Changes inside of an object that is not a layer go
    unnoticed. Names, trainability and the arguments of `compile` are not part
    of the state.

    Args:
        *watched: Keras layers, or anything else to compare.
    """

    __hash__ = None

    def __init__(self, *watched):
        self._values = _values(watched)

    def __eq__(self, other):
        if not isinstance(other, StaticState):
            return NotImplemented
        ours, theirs = self._values, other._values
        return len(ours) == len(theirs) and all(
            one is two or _is_equal(one, two)
            for one, two in zip(ours, theirs, strict=True)
        )


def attributes_of(layer):
    """A layer's own attributes by name, without those of every Keras layer."""
    kept = _attributes_of_all_layers()
    return {k: v for k, v in vars(layer).items() if k not in kept}


def sublayers_of(layer):
    """The layer and all inside of it, in an order that follows from them."""
    found, waiting, seen = [], [layer], set()
    while waiting:
        parent = waiting.pop()
        if id(parent) in seen:
            continue
        seen.add(id(parent))
        if isinstance(parent, keras.Layer):
            found.append(parent)
        waiting += [x for x in _children(parent) if isinstance(x, _PARENTS)]
    return found


def _values(watched):
    """All values, in an order that depends on the objects alone."""
    found, waiting, seen = [], [watched], set()
    while waiting:
        parent = waiting.pop()
        if id(parent) in seen:
            continue
        seen.add(id(parent))
        children = _children(parent)
        # Without their number, a last child could pass for the next parent's.
        found += [len(children), *children]
        waiting += [x for x in children if isinstance(x, _PARENTS)]
    return found


def _children(parent):
    if isinstance(parent, dict):
        return [*parent, *parent.values()]
    if isinstance(parent, _CONTAINERS):
        return parent
    if isinstance(parent, keras.Model):
        # Most other attributes are about training.
        state = (keras.Layer, keras.Variable)
        own = [x for x in vars(parent).values() if isinstance(x, state)]
        return [*own, *parent.layers]
    return [parent.dtype_policy, *attributes_of(parent).values()]


def _is_equal(one, two):
    if type(one) is type(two):
        if isinstance(one, _CONTAINERS):
            # Their elements are compared on their own.
            return True
        if isinstance(one, _COMPARED):
            return one == two
    # A symbolic tensor left over from a trace is never read by another one.
    return is_symbolic(one) and is_symbolic(two)


@functools.cache
def _attributes_of_all_layers():
    """Names of the attributes that Keras itself gives to every layer."""
    # Explicit names, so that automatic names of later layers do not change.
    layer = keras.layers.Layer(name="part")
    # A sublayer has more attributes than a layer on its own.
    keras.Model(name="whole").part = layer
    return frozenset(vars(layer))


_CONTAINERS = (list, tuple, dict)
_PARENTS = (keras.Layer, *_CONTAINERS)
_COMPARED = (bool, int, float, complex, str, bytes, types.MethodType)
