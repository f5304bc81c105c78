"""What a trace of layers takes for constant, and whether it still is."""

import functools
import types

import keras

from keras_reformer.ops.tracing import is_symbolic


class StaticState:
    """A snapshot of what a trace of layers takes for constant.

    A trace reads variables each time it runs. Everything else is baked in:
    settings, sublayers and the set of variables, so that a changed setting,
    LoRA or quantization needs a new trace. While two snapshots are equal, a
    trace made at the first is valid at the second.

    It has the attributes of layers, and of layers in lists, tuples and dicts.
    Numbers and strings are compared by value, other objects by identity; the
    snapshot refers to them, so that no later object takes their address.
    Changes inside an object that is not a layer are not seen: put a new
    object in its place. Names, `trainable` and what `compile` sets are left
    out.

    Args:
        *watched: Keras layers, or anything else to compare.
    """

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
    return [x for x, _ in _walk(layer) if isinstance(x, keras.Layer)]


def _values(watched):
    """All values, in an order that depends on the objects alone."""
    found = []
    for _, children in _walk(watched):
        # Without their number, a last child could pass for the next parent's.
        found += [len(children), *children]
    return found


def _walk(root):
    """Yields each object that has children, once, and its children."""
    waiting, seen = [root], set()
    while waiting:
        parent = waiting.pop()
        if id(parent) in seen:
            continue
        seen.add(id(parent))
        children = _children(parent)
        yield parent, children
        waiting += [x for x in children if isinstance(x, _PARENTS)]


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
    # A tensor that an earlier trace left on a layer is not read by the next.
    return is_symbolic(one) and is_symbolic(two)


@functools.cache
def _attributes_of_all_layers():
    """Names of the attributes that Keras gives any layer."""
    # Explicit names leave Keras's counter of automatic names as it is.
    layer = keras.layers.Layer(name="part")
    # A sublayer has more attributes than a layer alone.
    keras.Model(name="whole").part = layer
    return frozenset(vars(layer))


_CONTAINERS = (list, tuple, dict)
_PARENTS = (keras.Layer, *_CONTAINERS)
_COMPARED = (bool, int, float, complex, str, bytes, types.MethodType)
