"""What a trace of layers holds fixed, and whether it still holds."""

import functools
import types

import keras

from keras_reformer.ops.tracing import is_symbolic


class StaticState:
    """What a trace of layers takes for constant.

    A trace reads variables each time it runs. All else it keeps as it was:
    settings, sublayers, and which variables there are, so that a layer whose
    setting was changed, that has got LoRA or was quantized needs another one.
    Two states are equal while an old trace may answer.

    Found are the attributes of layers and of what is in lists, tuples and
    dicts. Numbers and strings are compared by value, other objects by
    identity; they are referred to, so that no later object can take theirs.
    What changes inside of an object that is no layer is not seen. Names,
    trainability and what `compile` sets are not part of the state.

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
    """All that is found, in an order that follows from the objects alone."""
    found, waiting, seen = [], [watched], set()
    while waiting:
        parent = waiting.pop()
        if id(parent) in seen:
            continue
        seen.add(id(parent))
        children = _children(parent)
        # Their number keeps one's last child from passing for the next's.
        found += [len(children), *children]
        waiting += [x for x in children if isinstance(x, _PARENTS)]
    return found


def _children(parent):
    if isinstance(parent, dict):
        return [*parent, *parent.values()]
    if isinstance(parent, _CONTAINERS):
        return parent
    if isinstance(parent, keras.Model):
        # Most attributes are about training.
        state = (keras.Layer, keras.Variable)
        own = [x for x in vars(parent).values() if isinstance(x, state)]
        return [*own, *parent.layers]
    return [parent.dtype_policy, *attributes_of(parent).values()]


def _is_equal(one, two):
    if type(one) is type(two):
        if isinstance(one, _CONTAINERS):
            # What is in them is among the values too.
            return True
        if isinstance(one, _COMPARED):
            return one == two
    # What a layer kept of the last trace was never read before it was set.
    return is_symbolic(one) and is_symbolic(two)


@functools.cache
def _attributes_of_all_layers():
    """Names of what Keras itself keeps of any layer."""
    # Names that are given leave those of later layers as they are.
    layer = keras.layers.Layer(name="part")
    # A part of something larger has more attributes.
    keras.Model(name="whole").part = layer
    return frozenset(vars(layer))


_CONTAINERS = (list, tuple, dict)
_PARENTS = (keras.Layer, *_CONTAINERS)
_COMPARED = (bool, int, float, complex, str, bytes, types.MethodType)
