"""The ways in which a function is run: eagerly, as a graph and under XLA."""

import tensorflow as tf

EXECUTIONS = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(
        function, autograph=False, jit_compile=True
    ),
}
