"""Depthwise convolution over the last few positions.

Written as sums of shifted inputs: kernels are two to four positions wide,
and XLA fuses the sum into what reads it, where a depthwise convolution of its
own would be a loop over single numbers on a CPU.
"""

from typing import NamedTuple

import tensorflow as tf

from keras_reformer.ops.shapes import Length, pad_axis, size


def short_convolution(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`y[t] = sum_i kernel[i] * x[t - i]`, zeros before the first position.

    Args:
        x: Tensor of shape `(batch, length, channels)`.
        kernel: Tensor of shape `(kernel_size, channels)`, the present first.

    Returns:
        Tensor of x's shape.
    """
    length = size(x, 1)
    back = kernel.shape[0] - 1
    padded = pad_axis(x, 1, back, 0)
    shifted = (padded[:, back - i : back - i + length] for i in range(back + 1))
    return sum(
        part * weight
        for part, weight in zip(shifted, tf.unstack(kernel), strict=True)
    )


class ConvolutionCache(NamedTuple):
    """The inputs that the next position still sees.

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
        """What is seen does not grow with the sequence."""
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
