"""Steps of TensorFlow: calls that compute and wait for what they computed."""


def compiled(function, inputs, jit_compile):
    """A step that calls a function, waits for its results, and drops them."""
    import tensorflow as tf

    graph = tf.function(function, autograph=False, jit_compile=jit_compile)

    def step():
        for result in tf.nest.flatten(graph(*inputs)):
            tf.reshape(result, [-1])[:1].numpy()

    return step


def layer(built, inputs, jit_compile, backward=True, **options):
    """A step of a built layer, on inputs or on random ones of a shape.

    Backward: the gradients of `sum(y * y)` by the inputs and all weights.
    Options are arguments of the layer's call, or None.
    """
    import tensorflow as tf

    options = {name: x for name, x in options.items() if x is not None}

    def forward(x):
        return built(x, training=False, **options)

    def forward_and_backward(x):
        weights = [variable.value for variable in built.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = built(x, training=True, **options)
            loss = tf.reduce_sum(y * y)
        return tape.gradient(loss, [x, *weights])

    if isinstance(inputs, tuple):
        inputs = tf.random.stateless_normal(inputs, (1, 2))
    function = forward_and_backward if backward else forward
    return compiled(function, [inputs], jit_compile)
