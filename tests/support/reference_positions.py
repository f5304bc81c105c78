"""Slow, obvious NumPy versions of position formulas, in float64.

As `tests/reference.py`: after the papers and the code published with them.
"""

import math

import numpy as np


def angle(position, plane, dim, max_wavelength=10000):
    """How far a plane is turned at a position, in radians."""
    return position * max_wavelength ** (-2 * plane / dim)


def sine_positions(length, dim, max_wavelength=10000, start=0):
    """Vaswani et al. 2017, section 3.5: `(length, dim)`."""
    table = np.zeros((length, dim))
    for row, feature in np.ndindex(table.shape):
        turned = angle(start + row, feature // 2, dim, max_wavelength)
        table[row, feature] = (math.cos if feature % 2 else math.sin)(turned)
    return table


def rotate(vectors, max_wavelength=10000, start=0):
    """Su et al. 2021, equation 15, with the planes `(i, dim / 2 + i)`.

    Args:
        vectors: `(..., length, dim)`.
    """
    vectors = np.asarray(vectors, np.float64)
    length, dim = vectors.shape[-2:]
    turned = np.zeros(vectors.shape)
    for row, plane in np.ndindex(length, dim // 2):
        theta = angle(start + row, plane, dim, max_wavelength)
        pair = vectors[..., row, [plane, dim // 2 + plane]]
        matrix = [
            [math.cos(theta), -math.sin(theta)],
            [math.sin(theta), math.cos(theta)],
        ]
        turned[..., row, [plane, dim // 2 + plane]] = pair @ np.transpose(
            matrix
        )
    return turned


def alibi_slopes(num_heads):
    """`get_slopes` of the code that Press et al. 2022 published."""
    if math.log2(num_heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(num_heads) - 3)))
        return [start * start**i for i in range(num_heads)]
    closest = 2 ** math.floor(math.log2(num_heads))
    more = alibi_slopes(2 * closest)[0::2][: num_heads - closest]
    return alibi_slopes(closest) + more


def alibi_bias(num_heads, length):
    """`(heads, length, length)`."""
    position = np.arange(length)
    distance = np.abs(position[:, None] - position)
    return -np.array(alibi_slopes(num_heads))[:, None, None] * distance


def relative_bucket(
    relative_position, bidirectional, num_buckets=32, max_distance=128
):
    """`_relative_position_bucket` of the code that T5's authors published.

    Args:
        relative_position: int. Position of the key less that of the query.
    """
    bucket, distance = 0, -relative_position
    if bidirectional:
        num_buckets //= 2
        bucket += (distance < 0) * num_buckets
        distance = abs(distance)
    else:
        distance = max(distance, 0)
    max_exact = num_buckets // 2
    if distance < max_exact:
        return bucket + distance
    share = math.log(distance / max_exact) / math.log(max_distance / max_exact)
    large = max_exact + int(share * (num_buckets - max_exact))
    return bucket + min(large, num_buckets - 1)
