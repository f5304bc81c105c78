"""Importance weights: pairs over the probability that rounds show them.

The pairs that hash rounds show are a sample of those of exact attention: a
pair is in it with probability `1 - (1 - p)^R`, near one for vectors of the
same direction and small for others. Divided by that probability (Horvitz and
Thompson 1952), the sums of the softmax are those of exact attention in
expectation over the rotations.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_reformer.ops.attention.window import Window
from keras_reformer.ops.loops.shapes import Length, ceil_div

_POINTS, _GREATEST = 241, 6.5
_NODES, _DEGREES, _TOLERANCE = 24, range(3, 9), 0.02
# Of a larger cosine the density would be too narrow for the grid.
_LARGEST_COSINE = 0.993


def same_bucket_probability(cosine: float, factors: tuple[int, ...]) -> float:
    """Probability that one round gives two vectors the same bucket.

    Each factor `n` has `n / 2` columns, in which the vectors' coordinates are
    pairs of standard normals whose correlation is the cosine. The bucket is
    the same where one column is the largest of both, with equal signs.

    Args:
        cosine: float in `(-1, 1)`, at most 0.993.
        factors: Tuple of even ints, whose product is the number of buckets.

    Returns:
        float: the product over the factors.
    """
    grid, step = np.linspace(0, _GREATEST, _POINTS, retstep=True)
    x, y = grid[:, None], grid[None, :]
    both = _normal_density(x, y, cosine)
    within = both + _normal_density(x, -y, cosine)
    for axis in (0, 1):
        within = _integral_up_to(within, step, axis)
    weights = np.full(_POINTS, step)
    weights[[0, -1]] /= 2
    return math.prod(
        n * weights @ (both * (2 * within) ** (n // 2 - 1)) @ weights
        for n in factors
    )


def _normal_density(x, y, correlation):
    rest = 1 - correlation**2
    exponent = (x**2 - 2 * correlation * x * y + y**2) / (2 * rest)
    return np.exp(-exponent) / (2 * np.pi * math.sqrt(rest))


def _integral_up_to(values, step, axis):
    """By the trapezoidal rule, which is exact for a whole normal density."""
    values = np.moveaxis(values, axis, 0)
    integral = np.zeros_like(values)
    integral[1:] = np.cumsum(values[1:] + values[:-1], axis=0) * (step / 2)
    return np.moveaxis(integral, 0, axis)


@functools.lru_cache
def fit_probability(
    factors: tuple[int, ...], num_hashes: int
) -> tuple[float, ...]:
    """`1 - (1 - p)^R` as a polynomial of the cosine on `[0, 1]`.

    A lookup for each score would take longer than its product.

    Returns:
        Coefficients of the powers 0, 1, ...: the fewest that are within 2 %
        everywhere, nine at most. Where these are not, with one round, or two
        and many factors, it is within 12 % below a cosine of 0.99.
    """
    nodes = (1 - np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)) / 2
    cosines = (1 - nodes**2)[1 - nodes**2 <= _LARGEST_COSINE]
    once = np.array([same_bucket_probability(x, factors) for x in cosines])
    cosines, once = np.append(cosines, 1.0), np.append(once, 1.0)
    wanted = 1 - (1 - once) ** num_hashes
    for degree in _DEGREES:
        powers = cosines[:, None] ** np.arange(degree + 1)
        # Errors of the weights are relative errors of the probability.
        relative = powers / wanted[:, None]
        fitted, *_ = np.linalg.lstsq(relative, np.ones_like(wanted), rcond=None)
        if np.abs(relative @ fitted - 1).max() < _TOLERANCE:
            break
    return tuple(fitted.tolist())


class Importance(NamedTuple):
    """Importance weights of shown pairs.

    Attributes:
        coefficients: of `fit_probability`.
        num_hashes: int.
    """

    coefficients: tuple[float, ...]
    num_hashes: int

    @classmethod
    def of(cls, factors: tuple[int, ...], num_hashes: int) -> "Importance":
        """The weights for these factors of the number of buckets."""
        return cls(fit_probability(tuple(factors), num_hashes), num_hashes)

    def probability(
        self,
        scores: tf.Tensor,
        inverse_norms: tf.Tensor,
        by_chance: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Probability that a pair is shown, a constant for gradients.

        A negative cosine counts as zero: such pairs are so rarely shown that
        their weights would be mostly noise.

        Args:
            scores: products of queries and keys of unit length.
            inverse_norms: one over the queries' lengths; broadcasts to the
                scores.
            by_chance: from `shown_by_chance`; broadcasts too.

        Returns:
            Tensor of the scores' shape.
        """
        cosine = tf.maximum(scores * inverse_norms, 0)
        *lower, shown = self.coefficients
        for coefficient in reversed(lower):
            shown = shown * cosine + coefficient
        if by_chance is not None:
            shown = by_chance + (1 - by_chance) * shown
        return tf.stop_gradient(shown)

    def by_rows(
        self, window: Window, positions: tf.Tensor, dtype: tf.DType
    ) -> Callable[..., tf.Tensor]:
        """`probability` as a function of the numbers of rows.

        Args:
            window: which keys a query sees in a round.
            positions: int32 `(rows, length)`, -1 where masked.
            dtype: of scores.

        Returns:
            Function of scores `(r, n, c, k)`, inverse norms that broadcast to
            them, and numbers of the rows, int32 `(r,)`.
        """
        lengths = tf.math.count_nonzero(positions >= 0, -1, dtype=tf.int32)
        by_chance = self.shown_by_chance(window, lengths, dtype)

        def probability(scores, inverse_norms, rows):
            of_rows = None
            if by_chance is not None:
                of_rows = tf.gather(by_chance, rows)[:, None, None, None]
            return self.probability(scores, inverse_norms, of_rows)

        return probability

    def shown_by_chance(
        self, window: Window, lengths: Length, dtype: tf.DType
    ) -> tf.Tensor | None:
        """Probability that some round shows a pair of different buckets.

        Windows of chunks show other buckets too: a round shows any key,
        whatever its vector, with a probability that is the window's share of
        the sequence.

        Args:
            window: which keys a query sees in a round.
            lengths: Numbers of valid tokens.
            dtype: of the result.

        Returns:
            Tensor of the lengths' shape, None where windows are of buckets.
        """
        if window.same_bucket:
            return None
        chunks = tf.cast(ceil_div(lengths, window.chunk_length), dtype)
        breadth = window.reach + 1
        missed = 1 - breadth / tf.maximum(chunks, breadth)
        return 1 - missed**self.num_hashes
