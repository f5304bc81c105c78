"""Running a function of single positions over chunks of the sequence.

What is wide and works on each position alone (feed-forward, vocabulary) then
takes memory for one chunk. The backward pass runs each chunk again, so that
not even the loop's steps are kept.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_reformer.ops.gradients import first_order_gradient
from keras_reformer.ops.shapes import ceil_div, pad_axis, size


def map_positions(
    function: Callable[..., tf.Tensor],
    inputs: tf.Tensor,
    weights: Sequence[tf.Tensor],
    chunk_length: int,
    output_dtype: tf.DType | None = None,
) -> tf.Tensor:
    """`function` of all positions, computed a chunk of them at a time.

    Args:
        function: `(chunk, first, weights) -> outputs`, with `chunk` of shape
            `(batch, chunk_length, dim)` and `first` its first position. It
            must be pure: what gets gradients comes in by its arguments.
        inputs: Tensor of shape `(batch, length, dim)`.
        weights: tensors that get gradients.
        chunk_length: int. Positions in a chunk.
        output_dtype: dtype of the function's outputs. Defaults to that of
            the inputs.

    Returns:
        Tensor of shape `(batch, length, output_dim)`.
    """
    length = size(inputs, 1)
    if isinstance(length, int) and length <= chunk_length:
        return function(inputs, 0, list(weights))
    chunks = ceil_div(length, chunk_length)

    def split(x):
        """`(b, n * c, d)` to `(n, b, c, d)`."""
        padded = pad_axis(x, 1, 0, chunks * chunk_length - length)
        shape = [size(x, 0), chunks, chunk_length, x.shape[2]]
        return tf.transpose(tf.reshape(padded, shape), (1, 0, 2, 3))

    def join(x):
        """`(n, b, c, d)` to `(b, length, d)`."""
        shape = [size(x, 1), chunks * chunk_length, x.shape[3]]
        return tf.reshape(tf.transpose(x, (1, 0, 2, 3)), shape)[:, :length]

    @first_order_gradient
    def mapped(inputs, *weights):
        parts = split(inputs)
        outputs = tf.map_fn(
            lambda index: function(
                parts[index], index * chunk_length, list(weights)
            ),
            tf.range(chunks),
            fn_output_signature=output_dtype or inputs.dtype,
            parallel_iterations=1,
        )

        def gradient(d_outputs):
            d_parts = split(d_outputs)
            d_inputs, d_weights = _accumulate(
                lambda index: _chunk_gradient(
                    function,
                    parts[index],
                    index * chunk_length,
                    weights,
                    d_parts[index],
                ),
                chunks,
                inputs.dtype,
                weights,
            )
            return (join(d_inputs), *d_weights)

        return join(outputs), gradient

    return mapped(inputs, *weights)


def _chunk_gradient(function, chunk, first, weights, d_outputs) -> tuple:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch((chunk, *weights))
        outputs = function(chunk, first, list(weights))
    d_chunk, *d_weights = tape.gradient(
        outputs,
        (chunk, *weights),
        output_gradients=d_outputs,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return d_chunk, tuple(d_weights)


def _accumulate(function, chunks, dtype, weights) -> tuple:
    """Stacks the chunks' gradients and sums those of the weights."""

    def step(index, array, *totals):
        d_chunk, d_weights = function(index)
        totals = (a + b for a, b in zip(totals, d_weights, strict=True))
        return index + 1, array.write(index, d_chunk), *totals

    _, array, *totals = tf.while_loop(
        lambda index, *state: index < chunks,
        step,
        (
            tf.constant(0),
            tf.TensorArray(dtype, chunks),
            *(tf.zeros_like(w) for w in weights),
        ),
        parallel_iterations=1,
    )
    return array.stack(), totals
