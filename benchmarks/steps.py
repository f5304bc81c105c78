"""Steps of TensorFlow: calls that compute and wait for what they computed."""

import functools


def compiled(function, inputs, jit_compile):
    """A step that calls a function, waits for its results, and drops them."""
    import tensorflow as tf

    graph = tf.function(function, autograph=False, jit_compile=jit_compile)

    def step():
        for result in tf.nest.flatten(graph(*inputs)):
            tf.reshape(result, [-1])[:1].numpy()

    return step


def gradients(layer, loss, **options):
    """A function to the gradients of a loss of a layer's outputs.

    These are by the inputs and all weights.
    """
    import tensorflow as tf

    def function(inputs):
        weights = [variable.value for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss(layer(inputs, training=True, **options))
        return tape.gradient(value, [inputs, *weights])

    return function


def layer(built, inputs, jit_compile, backward=True, **options):
    """A step of a built layer, on inputs or on random ones of a shape.

    Backward: the gradients of `sum(y * y)` by the inputs and all weights.
    Options are arguments of the layer's call, or None.
    """
    import tensorflow as tf

    options = {name: x for name, x in options.items() if x is not None}
    if isinstance(inputs, tuple):
        inputs = tf.random.stateless_normal(inputs, (1, 2))
    function = functools.partial(built, training=False, **options)
    if backward:
        function = gradients(built, lambda y: tf.reduce_sum(y * y), **options)
    return compiled(function, [inputs], jit_compile)
