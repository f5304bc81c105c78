"""Maps a function of single positions over chunks of the sequence.

Wide functions of each position alone (feed-forward, vocabulary) then take
memory for one chunk. The backward pass runs the function on each chunk again,
so that no step's activations are residuals.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_reformer.ops import tracing
from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.barrier import zeros_after
from keras_reformer.ops.loops.scan import ArraySpec, add_each, scan
from keras_reformer.ops.loops.shapes import (
    Length,
    at_least,
    ceil_div,
    pad_axis,
    size,
)

# As many times larger are chunks on a GPU, which starts each operation of a
# chunk anew.
_TIMES_ON_GPU = 16


def chunk_length_for(inputs: tf.Tensor, width: int, elements: int) -> Length:
    """Length of about equal chunks that hold at most so many elements.

    Args:
        inputs: Tensor of shape `(batch, length, dim)`.
        width: int. Elements that a position needs.
        elements: int. Elements that a chunk may need, over the batch; 16
            times as many where this is traced for a GPU.

    Returns:
        At least one position; the whole length where that is not too much.
    """
    if tracing.platform() == "gpu":
        elements *= _TIMES_ON_GPU
    length = size(inputs, 1)
    most = at_least(1, elements // at_least(1, size(inputs, 0) * width))
    steps = at_least(1, ceil_div(length, most))
    if _is_static(length, steps):
        # Some more steps, where these divide the length: padding is a copy.
        steps = next(
            (n for n in range(steps, 2 * steps) if length % n == 0), steps
        )
    return at_least(1, ceil_div(length, steps))


def map_positions(
    function: Callable[..., tf.Tensor],
    inputs: tf.Tensor,
    weights: Sequence[tf.Tensor],
    chunk_length: Length,
    output: ArraySpec | None = None,
) -> tf.Tensor:
    """`function` of all positions, computed a chunk of them at a time.

    Args:
        function: `(chunk, first, weights) -> outputs`, with `chunk` of shape
            `(batch, chunk_length, dim)` and `first` its first position. It
            must be pure: gradients flow to its arguments alone.
        inputs: Tensor of shape `(batch, length, dim)`.
        weights: tensors that get gradients.
        chunk_length: Positions in a chunk. Where all are known to fit into
            one, the function is just called.
        output: shape and dtype of a position's output. Defaults to those of
            its input.

    Returns:
        Tensor of shape `(batch, length, output_dim)`.
    """
    length = size(inputs, 1)
    if _is_static(length, chunk_length) and length <= chunk_length:
        return function(inputs, 0, list(weights))
    output = output or ArraySpec(inputs.shape[2:], inputs.dtype)
    chunked = _ChunkedFunction(function, length, chunk_length, output)
    mapped = custom_vjp(chunked.forward, chunked.backward)
    return mapped(inputs, list(weights))


def _is_static(*lengths: Length) -> bool:
    return all(isinstance(length, int) for length in lengths)


class _ChunkedFunction:
    """The two passes of `map_positions`, each a loop over chunks."""

    def __init__(self, function, length, chunk_length, output):
        self.function = function
        self.length = length
        self.chunk_length = chunk_length
        self.chunks = ceil_div(length, chunk_length)
        self.output = output

    def forward(self, inputs, weights) -> tuple:
        padded = self._padded(inputs)
        (stacked,), _ = scan(
            lambda index: (
                self._run(self._chunk(padded, index), index, weights),
            ),
            self.chunks,
            [self._result(inputs, self.output)],
            padded,
        )
        return self._join(stacked), (inputs, weights)

    def backward(self, residuals, d_outputs) -> tuple:
        """Gradients with respect to the inputs and, summed, the weights."""
        inputs, weights = residuals
        inputs, d_outputs = self._padded(inputs), self._padded(d_outputs)

        def step(index, *totals):
            d_chunk, d_weights = self._chunk_gradient(
                self._chunk(inputs, index),
                index,
                weights,
                self._chunk(d_outputs, index),
            )
            return d_chunk, *add_each(totals, d_weights)

        (d_inputs,), d_weights = scan(
            step,
            self.chunks,
            [self._result(inputs, ArraySpec(inputs.shape[2:], inputs.dtype))],
            d_outputs,
            [zeros_after(d_outputs, x.shape, x.dtype) for x in weights],
        )
        return self._join(d_inputs), d_weights

    def _result(self, inputs, position: ArraySpec) -> ArraySpec:
        shape = [size(inputs, 0), self.chunk_length, *position.shape]
        return ArraySpec(shape, position.dtype)

    def _chunk_gradient(self, chunk, index, weights, d_outputs) -> tuple:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch((chunk, *weights))
            outputs = self._run(chunk, index, weights)
        d_chunk, *d_weights = tape.gradient(
            outputs,
            (chunk, *weights),
            output_gradients=d_outputs,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return d_chunk, d_weights

    def _run(self, chunk, index, weights) -> tf.Tensor:
        return self.function(chunk, index * self.chunk_length, list(weights))

    def _padded(self, x) -> tf.Tensor:
        spare = self.chunks * self.chunk_length - self.length
        return pad_axis(x, 1, 0, spare)

    def _chunk(self, x, index) -> tf.Tensor:
        """One chunk, straight from where it lies."""
        shape = [size(x, 0), self.chunk_length, x.shape[2]]
        return tf.slice(x, (0, index * self.chunk_length, 0), shape)

    def _join(self, x) -> tf.Tensor:
        """`(n, b, c, d)` to `(b, length, d)`."""
        shape = [size(x, 1), self.chunks * self.chunk_length, x.shape[3]]
        joined = tf.reshape(tf.transpose(x, (1, 0, 2, 3)), shape)
        return joined[:, : self.length]
