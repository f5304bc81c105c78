"""Depthwise convolution over the last few positions.

Written as sums of shifted inputs: kernels are two to four positions wide,
and XLA fuses the sum into what reads it, where a depthwise convolution of its
own would be a loop over single numbers on a CPU.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.custom_vjp import custom_vjp
from keras_reformer.ops.loops.shapes import (
    Length,
    pad_axis,
    size,
    softmax_dtype,
)


def short_convolution(
    x: tf.Tensor, kernel: tf.Tensor, positions: tf.Tensor | None = None
) -> tf.Tensor:
    """`y[t] = sum_i kernel[i] * x[t - i]`, zeros before the first position.

    The residuals are x and the kernel, and no shifted copies.

    Args:
        x: Tensor of shape `(batch, length, channels)`.
        kernel: Tensor of shape `(kernel_size, channels)`, the present first.
        positions: int32 tensor `(batch, length)`: positions in documents that
            are packed into rows, or None. Before each document are zeros.

    Returns:
        Tensor of x's shape.
    """

    return custom_vjp(_forward, _backward)(x, kernel, positions)


def _forward(x, kernel, positions) -> tuple:
    y = sum(
        _within(positions, i, _shift(x, i)) * weight
        for i, weight in enumerate(tf.unstack(kernel))
    )
    return y, (x, kernel, positions)


def _backward(residuals, d_y) -> tuple:
    x, kernel, positions = residuals
    d_x = sum(
        _shift(_within(positions, i, d_y), -i) * weight
        for i, weight in enumerate(tf.unstack(kernel))
    )
    return d_x, _kernel_gradient(x, d_y, kernel, positions), None


def _kernel_gradient(x, d_y, kernel, positions) -> tf.Tensor:
    """`sum_t d_y[t] * x[t - i]`; the sums in float32 at least."""
    dtype = softmax_dtype(x.dtype)
    sums = [
        tf.reduce_sum(
            tf.cast(d_y * _within(positions, i, _shift(x, i)), dtype),
            axis=(0, 1),
        )
        for i in range(kernel.shape[0])
    ]
    return tf.cast(tf.stack(sums), kernel.dtype)


def _within(positions, by: int, x) -> tf.Tensor:
    """`x`, zero where `by` positions back is not in the same document."""
    if positions is None or by == 0:
        return x
    return tf.where((positions >= by)[..., None], x, tf.zeros_like(x))


def _shift(x, by: int) -> tf.Tensor:
    """`x[t - by]` at t, zeros where there is none."""
    length = size(x, 1)
    if by >= 0:
        return pad_axis(x, 1, by, 0)[:, :length]
    return pad_axis(x, 1, 0, -by)[:, -by:]


class ConvolutionCache(NamedTuple):
    """The inputs that the next position still reads.

    Attributes:
        recent: `(batch, kernel_size - 1, channels)`, the latest last.
    """

    recent: tf.Tensor

    @classmethod
    def of_prompt(
        cls, x: tf.Tensor, lengths: tf.Tensor, kernel_size: int
    ) -> "ConvolutionCache":
        """The cache after a pass over rows of these lengths."""
        back = kernel_size - 1
        # Shifted by the padding: before its first token a row has zeros.
        index = lengths[:, None] + tf.range(back)
        return cls(tf.gather(pad_axis(x, 1, back, 0), index, batch_dims=1))

    def grown(self, capacity: Length) -> "ConvolutionCache":
        """The cache itself: its size does not depend on the capacity."""
        return self

    def convolve(
        self, x: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, "ConvolutionCache"]:
        """`short_convolution` at one more position, and the cache after.

        Args:
            x: Tensor of shape `(batch, 1, channels)`.
            kernel: Tensor of shape `(kernel_size, channels)`.
        """
        window = tf.concat([tf.cast(self.recent, x.dtype), x], axis=1)
        after = tf.cast(window[:, 1:], self.recent.dtype)
        output = tf.reduce_sum(
            window * tf.reverse(kernel, [0]), axis=1, keepdims=True
        )
        return output, ConvolutionCache(after)
